"""The model files: what each reads from its config, in every style of keys."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unit.tiny_checkpoints import LLAMA, weights_for, write_checkpoint

from fastllm import errors, nn
from fastllm.formats.checkpoint import open_checkpoint
from fastllm.loading import load_module
from fastllm.nn import Attention

_GEMMA = {**LLAMA, "head_dim": 4, "num_hidden_layers": 6, "sliding_window": 5, "tie_word_embeddings": True}
_GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "vocab_size": 19,
    "n_embd": 12,
    "n_head": 3,
    "n_layer": 2,
    "n_positions": 32,
}


def _model(architecture: str, config: dict[str, Any]) -> nn.Model:
    return nn.architecture_class(architecture)(nn.Config(config))


def _attentions(model: nn.Model) -> list[Attention]:
    return [module for _, module in model.named_modules() if isinstance(module, Attention)]


def _logits(config: dict[str, Any], weights: dict[str, Any], ids: list[int]) -> Any:
    model = _model(config["architectures"][0], config)
    model.load_parameters(weights)
    return model(ids).numpy()


def test_mistral_windows() -> None:
    def windows(**config: Any) -> list[int]:
        return [layer.window for layer in _attentions(_model("MistralForCausalLM", {**LLAMA, **config}))]

    assert windows() == [4096, 4096]  # the architecture's own default
    assert windows(sliding_window=None) == [0, 0]
    assert windows(sliding_window=7) == [7, 7]


def test_qwen_windows() -> None:
    def windows(architecture: str = "Qwen2ForCausalLM", **config: Any) -> list[int]:
        values = {**LLAMA, "num_hidden_layers": 4, "sliding_window": 9, **config}
        return [layer.window for layer in _attentions(_model(architecture, values))]

    assert windows() == [0, 0, 0, 0]
    assert windows(use_sliding_window=True) == [0, 0, 0, 0]  # from layer 28 on
    assert windows(use_sliding_window=True, max_window_layers=1) == [0, 9, 9, 9]
    kinds = ["sliding_attention", "full_attention"] * 2
    assert windows(use_sliding_window=True, layer_types=kinds) == [9, 0, 9, 0]
    assert windows(layer_types=kinds) == [0, 0, 0, 0]
    assert windows("Qwen3ForCausalLM", use_sliding_window=True, max_window_layers=3) == [0, 0, 0, 9]


def test_qwen3_heads_have_128_channels_by_default() -> None:
    assert {layer.head_dim for layer in _attentions(_model("Qwen3ForCausalLM", LLAMA))} == {128}


def test_gemma_layers_alternate() -> None:
    def kinds(architecture: str, **config: Any) -> list[int]:
        return [layer.window for layer in _attentions(_model(architecture, {**_GEMMA, **config}))]

    assert kinds("Gemma2ForCausalLM") == [5, 0, 5, 0, 5, 0]
    assert kinds("Gemma3ForCausalLM") == [5, 5, 5, 5, 5, 0]
    assert kinds("Gemma3ForCausalLM", sliding_window_pattern=2) == [5, 0, 5, 0, 5, 0]
    listed = ["full_attention"] * 5 + ["sliding_attention"]
    assert kinds("Gemma3ForCausalLM", layer_types=listed) == [0, 0, 0, 0, 0, 5]


def test_gemma3_ropes_in_both_styles() -> None:
    old = {"rope_theta": 5e5, "rope_local_base_freq": 700.0, "rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    new = {
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 700.0},
        }
    }
    for style in (old, new):
        model: Any = _model("Gemma3ForCausalLM", {**_GEMMA, **style})
        full, local = model.model.rotary_emb.rope, model.model.rotary_emb_local.rope
        assert (full.type, full.theta, full.factor) == ("linear", 5e5, 8.0)
        assert (local.type, local.theta) == ("default", 700.0)
    plain: Any = _model("Gemma3ForCausalLM", _GEMMA)
    assert (plain.model.rotary_emb.rope.theta, plain.model.rotary_emb_local.rope.theta) == (1e6, 1e4)


def test_gemma3_with_eyes_reads_its_language_model(tmp_path: Path) -> None:
    config = {**_GEMMA, "architectures": ["Gemma3ForCausalLM"]}
    weights = weights_for(config)
    expected = _logits(config, weights, [1, 2, 3])
    outer = {"architectures": ["Gemma3ForConditionalGeneration"], "text_config": _GEMMA}
    extra = {"model.vision_tower.x.weight": np.zeros(3, np.float32), "multi_modal_projector.w": np.zeros(3, np.float32)}
    for index, style in enumerate(("language_model.model.", "model.language_model.")):
        named = {name.replace("model.", style, 1): weight for name, weight in weights.items()}
        folder = write_checkpoint(tmp_path / str(index), outer, {**named, **extra})
        module, _ = load_module(open_checkpoint(folder))
        assert np.array_equal(module([1, 2, 3]).numpy(), expected)


def test_gemma3_embedders_are_refused() -> None:
    with pytest.raises(errors.UnsupportedFormat, match="use_bidirectional_attention"):
        _model("Gemma3ForCausalLM", {**_GEMMA, "use_bidirectional_attention": True})


def test_rope_keys_in_both_styles_give_the_same_numbers() -> None:
    weights = weights_for(LLAMA)
    ids = list(range(19)) * 2
    scaling = {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}
    styles: list[dict[str, Any]] = [
        {"rope_theta": 900.0, "rope_scaling": {"type": "llama3", **scaling}},
        {"rope_theta": 900.0, "rope_scaling": {"rope_type": "llama3", **scaling}},
        {"rope_parameters": {"rope_type": "llama3", "rope_theta": 900.0, **scaling}},
    ]
    first, *others = [_logits({**LLAMA, **style}, weights, ids) for style in styles]
    for other in others:
        assert np.array_equal(first, other)
    assert not np.allclose(first, _logits(LLAMA, weights, ids), atol=1e-3)


def test_gpt2_names_of_the_first_release(tmp_path: Path) -> None:
    weights = weights_for(_GPT2)
    expected = _logits(_GPT2, weights, [3, 1, 4])
    bare = {name.removeprefix("transformer."): weight for name, weight in weights.items()}
    bare["h.0.attn.bias"] = np.ones((1, 1, 8, 8), np.float32)
    module, notes = load_module(open_checkpoint(write_checkpoint(tmp_path, _GPT2, bare)))
    assert np.array_equal(module([3, 1, 4]).numpy(), expected)
    assert "turned round" in notes[0]
    assert module.position_limit == 32


def test_gpt2_config_faults() -> None:
    with pytest.raises(errors.LoadError, match="12 features do not divide into 5 heads"):
        _model("GPT2LMHeadModel", {**_GPT2, "n_head": 5})
    with pytest.raises(errors.UnsupportedFormat, match="encoder"):
        _model("GPT2LMHeadModel", {**_GPT2, "add_cross_attention": True})


@pytest.mark.parametrize("architecture", nn.known_architectures())
def test_every_architecture_records(architecture: str) -> None:
    """The graph names every module that computes, and ends in logits."""
    config = {**_GEMMA, **_GPT2, "architectures": [architecture]}
    weights = weights_for(config)
    model = _model(architecture, config)
    model.load_parameters(weights)
    recorder = nn.record(model)
    text = recorder.graph.dump()
    names = {line.split("# ")[1] for line in text.splitlines() if "# " in line}
    for path, module in model.named_modules():
        if isinstance(module, (nn.Linear, nn.RMSNorm, nn.LayerNorm, nn.Embedding)):
            assert path in names
    assert len(recorder.kv_layers) == config["num_hidden_layers"] or len(recorder.kv_layers) == config["n_layer"]
    assert model([1, 2, 3]).shape == (3, 19)


def test_the_example_of_an_architecture_of_ones_own(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It streams, and compares the compiled model with the class called by hand, which it exits over if they differ."""
    runpy.run_path(str(repository / "examples" / "custom_architecture.py"), run_name="__main__")
    out = capsys.readouterr().out
    assert "ParallelForCausalLM" in out
    difference = re.search(r"difference between compiled and eager logits: (\S+)", out)
    assert difference is not None
    assert float(difference[1]) < 1e-5
