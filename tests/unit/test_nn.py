"""Modules: names, weights, ties, the tree, rotary tables, the registry."""

from __future__ import annotations

import gc
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fastllm import errors, nn, ops
from fastllm.formats.rope import RopeConfig
from fastllm.nn.layers import rounded
from fastllm.nn.rotary import inverse_frequencies
from fastllm.tensor import Tensor, ones

RNG = np.random.default_rng(2)


def _random(*shape: int) -> npt.NDArray[np.float32]:
    return RNG.normal(size=shape).astype(np.float32)


class Tiny(nn.Model):
    """A model of every kind of name: a list, a tie, a bias, a weight of its own."""

    ignored_tensors = (r"\.inv_freq$",)

    def __init__(self, config: nn.Config) -> None:
        super().__init__(config)
        self.model = nn.Module()
        self.model.embed = nn.Embedding(7, 4)
        self.model.layers = nn.ModuleList(nn.Linear(4, 4, bias=True) for _ in range(2))
        self.model.gain = nn.parameter((4,))
        self.lm_head = nn.Linear(4, 7)
        if config.flag("tie_word_embeddings", default=False):
            self.tie(self.model.embed, self.lm_head)

    def forward(self, ids: Any, step: nn.Step) -> Any:
        x = self.model.embed(ids)
        for layer in self.model.layers:
            x = x + ops.silu(layer(x))
        return self.lm_head(x * self.model.gain)


def _tiny(**config: Any) -> Tiny:
    return Tiny(nn.Config({"vocab_size": 7, **config}))


def _weights(tied: bool = False) -> dict[str, Any]:
    weights = {
        "model.embed.weight": _random(7, 4),
        "model.gain": _random(4),
        "lm_head.weight": _random(7, 4),
        **{f"model.layers.{i}.weight": _random(4, 4) for i in range(2)},
        **{f"model.layers.{i}.bias": _random(4) for i in range(2)},
    }
    if tied:
        del weights["lm_head.weight"]
    return weights


def _expected(w: dict[str, Any], ids: list[int], head: Any) -> npt.NDArray[np.float64]:
    x = w["model.embed.weight"][ids].astype(np.float64)
    for i in range(2):
        y = x @ w[f"model.layers.{i}.weight"].T + w[f"model.layers.{i}.bias"]
        x = x + y / (1 + np.exp(-y))
    result: npt.NDArray[np.float64] = (x * w["model.gain"]) @ head.T
    return result


def test_names_come_from_attributes() -> None:
    model = _tiny()
    names = list(model.parameters())
    assert set(names) == set(_weights())
    assert model.model.layers[1].path == "model.layers.1"
    assert [path for path, _ in model.named_modules() if path.endswith("layers.0")] == ["model.layers.0"]
    assert len(model.model.layers) == 2
    assert model.model.layers[-1] is model.model.layers[1]


def test_forward_and_ids() -> None:
    model, weights = _tiny(), _weights()
    model.load_parameters(weights)
    expected = _expected(weights, [1, 6, 3], weights["lm_head.weight"])
    assert np.allclose(model([1, 6, 3]).numpy(), expected, atol=1e-5)
    assert np.allclose(model(np.array([1, 6, 3])).numpy(), expected, atol=1e-5)
    assert np.allclose(model(Tensor([1, 6, 3])).numpy(), expected, atol=1e-5)
    recorded = nn.record(model).graph.dump()
    assert "# model.layers.1\n" in recorded
    assert "# lm_head" in recorded


def test_weights_are_shared_not_copied() -> None:
    model, weights = _tiny(), _weights()
    model.load_parameters(weights)
    weights["model.gain"][:] = 0
    assert not model([1]).numpy().any()
    assert model.model.gain.name == "model.gain"
    assert "model.gain" in repr(model.model.gain)


def test_tied_weights() -> None:
    weights = _weights(tied=True)
    model = _tiny(tie_word_embeddings=True)
    model.load_parameters(weights)
    assert model.lm_head.weight is model.model.embed.weight
    expected = _expected(weights, [5, 2], weights["model.embed.weight"])
    assert np.allclose(model([5, 2]).numpy(), expected, atol=1e-5)
    assert "lm_head.weight" not in nn.record(model).graph.dump()
    # A file may hold the table twice, or under the other name only: the config decides what it means.
    model = _tiny(tie_word_embeddings=True)
    model.load_parameters({**weights, "lm_head.weight": _random(7, 4)})
    assert np.allclose(model([5, 2]).numpy(), expected, atol=1e-5)
    model = _tiny(tie_word_embeddings=True)
    renamed = {("lm_head.weight" if name == "model.embed.weight" else name): w for name, w in weights.items()}
    model.load_parameters(renamed)
    assert np.allclose(model([5, 2]).numpy(), expected, atol=1e-5)
    assert model.parameter_count == sum(w.size for w in weights.values())


def test_names_without_the_first_word() -> None:
    weights = _weights()
    short = {name.removeprefix("model."): w for name, w in weights.items()}
    model = _tiny()
    model.load_parameters(short)
    assert np.allclose(model([1]).numpy(), _expected(weights, [1], weights["lm_head.weight"]), atol=1e-5)


def test_faults_of_weights_are_named() -> None:
    weights = _weights()
    missing = {name: w for name, w in weights.items() if "layers.1" not in name}
    with pytest.raises(errors.MissingTensor, match=r"model\.layers\.1\.weight, model\.layers\.1\.bias") as caught:
        _tiny().load_parameters(missing)
    assert caught.value.names == ("model.layers.1.weight", "model.layers.1.bias")
    untied = {name: w for name, w in weights.items() if name != "lm_head.weight"}
    with pytest.raises(errors.MissingTensor, match="tie_word_embeddings"):
        _tiny().load_parameters(untied)
    with pytest.raises(errors.ShapeError, match=r"model\.gain has shape \[5\] .* \[4\]"):
        _tiny().load_parameters({**weights, "model.gain": _random(5)})
    with pytest.raises(errors.UnsupportedFormat, match=r"model\.extra"):
        _tiny().load_parameters({**weights, "model.extra": _random(5)})
    _tiny().load_parameters({**weights, "model.extra": _random(5)}, strict=False)
    _tiny().load_parameters({**weights, "model.rope.inv_freq": _random(5)})
    with pytest.raises(errors.UnsupportedFormat, match=r"model\.gain is int32"):
        _tiny().load_parameters({**weights, "model.gain": np.zeros(4, np.int32)})
    with pytest.raises(errors.MissingTensor, match="no numbers yet"):
        nn.record(_tiny())


def test_unfilled_parameters_say_so() -> None:
    layer = nn.Linear(3, 2)
    assert "[2, 3]" in repr(layer.weight)
    with pytest.raises(errors.MissingTensor, match="no numbers yet"):
        layer(ones((1, 3)))
    layer.weight = Tensor(_random(2, 3))
    assert layer(ones((1, 3))).shape == (1, 2)
    with pytest.raises(errors.ShapeError, match=r"\[2, 3\] but got \[3, 2\]"):
        layer.weight = Tensor(_random(3, 2))
    with pytest.raises(AttributeError, match=r"no attribute 'wieght'.*weight"):
        _ = layer.wieght


def test_a_record_that_gives_no_logits_is_refused() -> None:
    class Short(Tiny):
        def forward(self, ids: Any, step: nn.Step) -> Any:
            return self.model.embed(ids)

    class Constant(Tiny):
        def forward(self, ids: Any, step: nn.Step) -> Any:
            return ones((1, 7))

    class Peeks(Tiny):
        def forward(self, ids: Any, step: nn.Step) -> Any:
            x = self.model.embed(ids)
            return self.lm_head(x) if x.mean() > 0 else x

    for kind, error, text in (
        (Short, errors.ShapeError, r"\['tokens', 4\] instead of \[tokens, 7\]"),
        (Constant, errors.InvalidRequest, "instead of logits"),
        (Peeks, AttributeError, "mean"),
    ):
        model = kind(nn.Config({"vocab_size": 7}))
        model.load_parameters(_weights())
        with pytest.raises(error, match=text):
            nn.record(model)


def test_transposed_weights_are_turned_round() -> None:
    layer, w, x = nn.Conv1D(3, 5), _random(3, 5), _random(2, 3)
    holder = _holder(layer)
    holder.load_parameters({"layer.weight": w, "layer.bias": np.zeros(5, np.float32)})
    assert np.allclose(layer(Tensor(x)).numpy(), x @ w, atol=1e-5)
    with pytest.raises(errors.ShapeError, match=r"\[5, 3\] .* \[3, 5\]"):
        _holder(nn.Conv1D(3, 5)).load_parameters({"layer.weight": w.T, "layer.bias": np.zeros(5, np.float32)})


def _holder(layer: nn.Module) -> nn.Model:
    class Holder(nn.Model):
        base_prefix = ""

    holder = Holder(nn.Config({"vocab_size": 5}))
    holder.layer = layer
    return holder


def test_the_small_layers() -> None:
    x = _random(3, 6)
    for layer, weights, expected in [
        (
            nn.GatedMLP(6, 5, activation="relu"),
            {"gate_proj": _random(5, 6), "up_proj": _random(5, 6), "down_proj": _random(6, 5)},
            lambda w: (np.maximum(x @ w["gate_proj"].T, 0) * (x @ w["up_proj"].T)) @ w["down_proj"].T,
        ),
        (
            nn.MLP(6, 5, activation="relu", bias=False),
            {"up_proj": _random(5, 6), "down_proj": _random(6, 5)},
            lambda w: np.maximum(x @ w["up_proj"].T, 0) @ w["down_proj"].T,
        ),
    ]:
        _holder(layer).load_parameters({f"layer.{name}.weight": w for name, w in weights.items()})
        assert np.allclose(layer(Tensor(x)).numpy(), expected(weights), atol=1e-5)


def test_embedding_scale_is_rounded_to_the_weights() -> None:
    scale = 55.0**0.5
    for dtype in ("float32", "float16", "bfloat16"):
        layer = nn.Embedding(3, 4, scale=scale)
        _holder(layer).load_parameters({"layer.weight": ones((3, 4), dtype)})
        assert layer(Tensor([1])).numpy()[0, 0] == np.float32(Tensor(scale, dtype=dtype).item())
    assert rounded(1.0 + 2**-8, Tensor(0.0, dtype="bf16").dtype) == 1.0


def test_tree_shows_repeated_layers_once() -> None:
    tree = repr(_tiny())
    assert "0-1: Linear(4 → 4, bias)" in tree
    assert "embed: Embedding(7 × 4)" in tree
    assert tree.splitlines()[0].startswith("Tiny(")


def test_modules_are_freed_without_the_collector() -> None:
    import weakref

    model = _tiny()
    model.load_parameters(_weights())
    gone = weakref.ref(model)
    gc.disable()
    try:
        del model
        assert gone() is None
    finally:
        gc.enable()


# --- rotary tables ----------------------------------------------------------------------------------------------------

ROPES = [
    RopeConfig(theta=10000.0),
    RopeConfig(theta=5e5, type="linear", factor=4.0),
    RopeConfig(theta=5e5, type="llama3", factor=8.0, low_freq_factor=1, high_freq_factor=4, original_max_position=8192),
    RopeConfig(theta=1e4, type="yarn", factor=4.0, original_max_position=2048),
    RopeConfig(theta=1e4, type="yarn", factor=4.0, original_max_position=2048, truncate=False, beta_fast=16),
    RopeConfig(theta=1e4, type="dynamic", factor=2.0, max_position=2048),
]


@pytest.mark.parametrize("rope", ROPES, ids=lambda rope: rope.type)
def test_frequencies_agree_with_double_precision(rope: RopeConfig) -> None:
    """The table in float32 against the formula in float64, computed apart from it in formats.rope."""
    actual = inverse_frequencies(rope, 64)
    assert actual.dtype == np.float32
    assert np.allclose(actual, rope.inverse_frequencies(64), rtol=1e-5)


def test_longrope_has_two_tables() -> None:
    short, long = tuple(1 + i / 10 for i in range(4)), tuple(2.0 + i for i in range(4))
    rope = RopeConfig(type="longrope", short_factor=short, long_factor=long, original_max_position=10)
    rotary = nn.RotaryEmbedding(8, rope)
    assert np.allclose(rotary.inv_freq.numpy(), rope.inverse_frequencies(8), rtol=1e-6)
    assert rotary.long_inv_freq is not None
    assert np.allclose(rotary.long_inv_freq.numpy(), rope.inverse_frequencies(8, length=11), rtol=1e-6)
    with pytest.raises(errors.LoadError, match="4 numbers .* 3 pairs"):
        nn.RotaryEmbedding(6, rope)
    with pytest.raises(errors.LoadError, match="pairs"):
        nn.RotaryEmbedding(10, RopeConfig(partial_rotary_factor=0.5))


def test_attention_heads_must_divide() -> None:
    with pytest.raises(errors.LoadError, match="6 query heads cannot share 4"):
        nn.Attention(12, heads=6, kv_heads=4, head_dim=2, layer=0)


# --- config and registry ----------------------------------------------------------------------------------------------


def test_config_reads_typed_values() -> None:
    config = nn.Config({"a": 3, "b": 2.5, "c": None, "d": "x", "e": True, "f": 4.0})
    assert config.integer("a") == 3
    assert config.integer("missing", "f") == 4
    assert config.integer("c", default=9) == 9
    assert config.real("a") == 3.0
    assert config.flag("e", default=False)
    assert config.text("d") == "x"
    assert config.bound("c", missing=7) == 0
    assert config.bound("zz", missing=7) == 7
    for ask, text in (
        (lambda: config.integer("zz", "yy"), "'zz' or 'yy'"),
        (lambda: config.integer("b"), "b is 2.5"),
        (lambda: config.integer("e"), "e is True"),
        (lambda: config.real("d"), "d is 'x'"),
        (lambda: config.flag("d", default=True), "d is 'x'"),
        (lambda: config.text("a"), "a is 3"),
    ):
        with pytest.raises(errors.LoadError, match=text):
            ask()
    with pytest.raises(errors.LoadError):
        nn.Config({"a": math.nan}).real("a")
    with pytest.raises(errors.LoadError, match="list of 2"):
        nn.Config({"layer_types": ["full_attention"]}).layer_types(2)


def test_registry() -> None:
    known = nn.known_architectures()
    for name in ("Llama", "Mistral", "Qwen2", "Qwen3", "Gemma2", "Gemma3", "Phi3"):
        assert f"{name}ForCausalLM" in known
    assert "GPT2LMHeadModel" in known

    @nn.register("TestOnlyForCausalLM")
    class First(Tiny):
        pass

    assert nn.architecture_class("TestOnlyForCausalLM") is First

    @nn.register
    class TestOnlyOther(Tiny):
        pass

    assert nn.architecture_class("TestOnlyOther") is TestOnlyOther
    with pytest.raises(errors.UnsupportedArchitecture, match="LlamaForCausalLM") as caught:
        nn.architecture_class("LamaForCausalLM")
    assert caught.value.architecture == "LamaForCausalLM"
    assert "LlamaForCausalLM" in caught.value.known
    assert "Did you mean LlamaForCausalLM?" in str(caught.value)
    assert "fastllm.register" in str(caught.value)
    with pytest.raises(errors.InvalidRequest, match="subclass"):
        nn.register("X")(nn.Linear)  # type: ignore[type-var]


def test_context_length_counts_stretched_ropes() -> None:
    def length(**config: Any) -> int:
        return _tiny(max_position_embeddings=1000, **config).context_length

    assert length() == 1000
    assert length(rope_scaling={"type": "linear", "factor": 4.0}) == 4000
    assert length(rope_scaling={"rope_type": "dynamic", "factor": 2.0}) == 2000
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1000}
    assert length(rope_scaling=yarn) == 4000
    assert length(rope_parameters={**yarn, "rope_theta": 1e4}) == 4000
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1, "high_freq_factor": 4}
    assert length(rope_scaling={**llama3, "original_max_position_embeddings": 125}) == 1000
