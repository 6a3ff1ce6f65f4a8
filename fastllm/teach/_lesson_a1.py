"""Exercises of notebook A1, Add a model in one file."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastllm.teach._check import NotYet, Untouched, exercise
from fastllm.teach._demo import as_integer, demo, function

_SIZES = {
    "vocab_size": 90,
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}


@exercise(
    "A1.1",
    kind="the class ParallelLayer",
    hints=(
        "Norm x once, and keep the result: normed = self.norm(x).",
        "attention wants the step as its second argument, mlp does not.",
    ),
)
def _(answer: Any) -> str:
    from fastllm import nn
    from fastllm.tensor import Tensor

    if not (isinstance(answer, type) and issubclass(answer, nn.Module)):
        raise NotYet("This wants the class itself, a subclass of nn.Module: check('A1.1', ParallelLayer).")
    random = np.random.default_rng(11)

    class Norm(nn.Module):
        calls = 0

        def forward(self, x: Any) -> Any:
            Norm.calls += 1
            return x * 0.5

    class Attention(nn.Module):
        def forward(self, x: Any, step: Any) -> Any:
            if step != "the step":
                raise NotYet(f"attention should get the step as its second argument; it got {step!r}.")
            return x * x

    class Mlp(nn.Module):
        def forward(self, x: Any) -> Any:
            return x + 3.0

    layer: Any = answer(Norm(), Attention(), Mlp())
    x = random.normal(size=(5, 24)).astype(np.float32)
    given = layer(Tensor(x), "the step")
    if given is Ellipsis:
        raise Untouched
    if not isinstance(given, Tensor):
        raise NotYet(f"forward should give a tensor, and gave {type(given).__name__}.")
    found, half = given.numpy(), x * 0.5
    wanted = x + half * half + half + 3.0
    if found.shape != x.shape:
        raise NotYet(f"From shape {list(x.shape)} it made {list(found.shape)}.")
    mistakes: dict[str, Any] = {
        "The x + is missing: the layer should add to what it gets.": wanted - x,
        "The mlp reads what attention made. In a parallel layer both read the normed input.": (
            x + half * half + (x + half * half) * 0.5 + 3.0
        ),
        "The mlp is missing.": x + half * half,
        "The attention is missing.": x + half + 3.0,
        "The parts read x itself; they should read norm(x).": x + x * x + x + 3.0,
    }
    if not np.allclose(found, wanted, atol=1e-5):
        for words, wrong in mistakes.items():
            if np.allclose(found, wrong, atol=1e-5):
                raise NotYet(words)
        raise NotYet(f"It is off by up to {np.abs(found - wanted).max():.3g}.")
    return "One norm less in each layer, and two large products that can run together. GPT-J did it first."


@exercise(
    "A1.2",
    kind="a function weights(config)",
    hints=(
        "A Linear from a to b has a * b weights. A norm over n numbers has n.",
        "A layer: q and o (hidden x heads*head_dim), k and v (hidden x kv_heads*head_dim), three of hidden x inner, "
        "two norms of hidden, two of head_dim.",
        "Outside the layers: the table (vocab x hidden), once, and the last norm.",
    ),
)
def _(answer: Any) -> str:
    from fastllm import nn

    weights = function(answer, 'check("A1.2", weights)')
    own = demo()
    if (found := as_integer(weights(dict(own.config)))) != own.info.parameters:
        difference = found - own.info.parameters
        table = own.config["vocab_size"] * own.config["hidden_size"]
        more = " That is the table once more: tied weights count once." if difference == table else ""
        raise NotYet(f"The demo model has {own.info.parameters} weights; yours gives {found}, {difference:+}.{more}")
    random = np.random.default_rng(12)
    for _ in range(4):
        heads = int(random.integers(1, 4))
        config = {
            **_SIZES,
            "hidden_size": int(random.integers(2, 40)) * 4,
            "num_key_value_heads": heads,
            "num_attention_heads": heads * int(random.integers(1, 4)),
            "num_hidden_layers": int(random.integers(1, 9)),
            "vocab_size": int(random.integers(50, 400)),
        }
        truth = nn.architecture_class("Qwen3ForCausalLM")(nn.Config(config)).parameter_count
        if (found := as_integer(weights(dict(config)))) != truth:
            raise NotYet(f"For {config} it should be {truth}, and is {found}.")
    return "The table is a seventh of this small model. In a large one it hardly counts."


@exercise(
    "A1.3",
    kind="the class Bigram",
    hints=(
        "def __init__(self, config): super().__init__(config), then self.embed and self.head.",
        "config.integer('vocab_size') reads a size. nn.Linear(hidden, vocab) gives scores.",
        "forward is one line: self.head(self.embed(ids)).",
    ),
)
def _(answer: Any) -> str:
    from fastllm import nn

    if not (isinstance(answer, type) and issubclass(answer, nn.Model)):
        raise NotYet("This wants the class itself, a subclass of nn.Model: check('A1.3', Bigram).")
    config = nn.Config({"vocab_size": 50, "hidden_size": 12})
    model = answer(config)
    shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
    if not shapes:
        raise Untouched
    wanted = {"embed.weight": (50, 12), "head.weight": (50, 12)}
    if shapes != wanted:
        raise NotYet(f"It should have the weights {wanted}, and has {shapes}.")
    random = np.random.default_rng(13)
    tables = {name: random.normal(size=shape).astype(np.float32) for name, shape in wanted.items()}
    model.load_parameters(tables)
    ids = [7, 3, 49, 7]
    given: Any = model(ids)
    if given is Ellipsis:
        raise Untouched
    found = np.asarray(given)
    truth = tables["embed.weight"][ids] @ tables["head.weight"].T
    if found.shape != truth.shape:
        raise NotYet(f"For 4 ids the scores should be {list(truth.shape)}, and are {list(found.shape)}.")
    if not np.allclose(found, truth, atol=1e-4):
        raise NotYet(f"The scores are off by up to {np.abs(found - truth).max():.3g}.")
    nn.record(model)  # it can be compiled as well
    return "It could be registered and would stream. It is the model `without attention` of section 4, in essence."
