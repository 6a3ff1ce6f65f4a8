"""What transformers computes: logits of a whole text, and the greedy continuation with its margins."""

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
