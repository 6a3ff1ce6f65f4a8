"""What transformers computes: logits of a whole text, the greedy continuation with its margins, products with rounded
weights and inputs."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import numpy.typing as npt


def full_logits(model: Any, ids: list[int]) -> npt.NDArray[np.float32]:
    """Logits [tokens, vocab] of one forward over the whole text."""
    import torch

    model = copy.deepcopy(model)  # a length-dependent rope remembers the longest text it saw
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    result: npt.NDArray[np.float32] = logits.float().numpy()
    return result


def greedy(model: Any, ids: list[int], count: int) -> tuple[list[int], list[float], list[float]]:
    """The most likely continuation, by steps with a cache: tokens, their log-probabilities, their leads in logits."""
    import torch

    model = copy.deepcopy(model)
    chosen, logprobs, margins = [], [], []
    with torch.no_grad():
        cache, fed = None, torch.tensor([ids])
        for _ in range(count):
            out = model(fed, past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            best = torch.topk(out.logits[0, -1].float(), 2)
            chosen.append(int(best.indices[0]))
            logprobs.append(float(torch.log_softmax(out.logits[0, -1].double(), -1)[chosen[-1]]))
            margins.append(float(best.values[0] - best.values[1]))
            fed = torch.tensor([[chosen[-1]]])
    return chosen, logprobs, margins


def distance(actual: Any, expected: npt.NDArray[np.float32]) -> float:
    """Largest difference as a share of the spread of the expected logits."""
    assert actual.shape == expected.shape, (actual.shape, expected.shape)
    spread = float(expected.max() - expected.min())
    return float(np.abs(np.asarray(actual, np.float64) - expected).max()) / spread


def quantized(model: Any, quant: str, *, dtype: str = "float32") -> Any:
    """A copy of a float32 model whose products compute with what the codes of weights of `dtype` say.

    Weights, and for fp8_dynamic inputs. The output layer keeps 8 bits and its inputs; the embedding's table stays.
    """
    import torch

    from fastllm import Tensor, _core

    model = copy.deepcopy(model)
    head = model.get_output_embeddings()
    with torch.no_grad():
        for module in model.modules():
            if not isinstance(module, torch.nn.Linear):
                continue
            name = quant
            if module is head:
                if model.config.tie_word_embeddings:
                    continue
                name = "int8" if quant.startswith("int4") else quant.removesuffix("_dynamic")
            weight = Tensor(module.weight.numpy()).astype(dtype)
            rounded = Tensor._wrap(_core.rounded_to(weight._handle, name))
            module.weight.copy_(torch.from_numpy(rounded.astype("float32").numpy()))
            if name.endswith("_dynamic"):
                module.register_forward_pre_hook(lambda _, inputs: (rounded_tokens(inputs[0]), *inputs[1:]))
    return model


def rounded_tokens(x: Any) -> Any:
    """Each vector of the last axis as PyTorch's float8 e4m3, its largest number 448."""
    import torch

    most = x.abs().amax(-1, keepdim=True).float().clamp(min=2.0**-64)
    codes = (x.float() * (448 / most)).clamp(-448, 448).to(torch.float8_e4m3fn)
    return (codes.float() * (most / 448)).to(x.dtype)
