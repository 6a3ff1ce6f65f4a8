"""Loading: mapped weights, dtypes, progress, and a typed error for every fault before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from unit.tiny_checkpoints import LLAMA, bfloat16_bits, weights_for, write_checkpoint

from fastllm import errors, nn
from fastllm.formats.checkpoint import open_checkpoint
from fastllm.loading import LoadCancelled, LoadedModel, LoadProgress, load_module, load_program


def _load(folder: Path, **options: Any) -> LoadedModel:
    return load_program(open_checkpoint(folder), threads=1, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny", LLAMA, weights_for(LLAMA))


def test_what_a_load_gives(folder: Path) -> None:
    loaded = _load(folder)
    info = loaded.info
    assert info.architecture == "LlamaForCausalLM"
    assert info.parameters == sum(w.size for w in weights_for(LLAMA).values())
    assert (info.dtype, info.vocab_size, info.context_length, info.layers) == ("float32", 19, 64, 2)
    assert info.device == "cpu"
    assert info.weight_bytes >= 4 * info.parameters * 0.9
    assert info.notes == ()
    assert loaded.tokenizer is None
    assert loaded.config["hidden_size"] == 12
    assert loaded.program.vocab_size == 19
    assert loaded.program.context_length == 64
    assert loaded.program.kv_bytes_per_token == 2 * 2 * 4 * 4
    assert isinstance(loaded.module, nn.Model)
    assert loaded.module([1, 2, 3]).shape == (3, 19)


def test_weights_are_mapped_not_copied(folder: Path) -> None:
    """Changing the file changes the weights: there is no other copy of them."""
    checkpoint = open_checkpoint(folder)
    module, _ = load_module(checkpoint)
    source = checkpoint.tensors["model.norm.weight"]
    before = module.model.norm.weight.tolist()
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(source.offset)
        file.write(np.float32(123).tobytes())
    after = module.model.norm.weight.tolist()
    assert after == [123.0, *before[1:]]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_dtypes(tmp_path: Path, dtype: str, stored: str) -> None:
    weights: dict[str, Any] = weights_for(LLAMA)
    if stored == "bfloat16":
        weights = {name: bfloat16_bits(w) for name, w in weights.items()}
    folder = write_checkpoint(tmp_path, LLAMA, weights)
    module, notes = load_module(open_checkpoint(folder), dtype=dtype)
    assert module.dtype == dtype
    assert {p.data.dtype for p in module.parameters().values() if p.data is not None} == {dtype}
    assert bool(notes) == (dtype != stored)
    if notes:
        assert f"from {stored} to {dtype}" in notes[0]
    exact = weights_for(LLAMA)["lm_head.weight"]
    tolerance = {"float32": 0, "float16": 2**-11, "bfloat16": 2**-8}
    relative = max(tolerance[dtype], tolerance[stored])
    assert np.allclose(module.lm_head.weight.numpy(), exact, rtol=relative, atol=1e-7)
    assert load_module(open_checkpoint(folder))[0].dtype == stored


def test_float64_is_narrowed(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path, LLAMA, {n: w.astype(np.float64) for n, w in weights_for(LLAMA).items()})
    module, notes = load_module(open_checkpoint(folder))
    assert module.dtype == "float32"
    assert "from float64 to float32" in notes[0]


def test_unaligned_tensors_are_read(tmp_path: Path) -> None:
    weights = weights_for(LLAMA)
    folder = write_checkpoint(tmp_path, LLAMA, weights)
    path = folder / "model.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    shifted = (length + 1).to_bytes(8, "little") + data[8 : 8 + length] + b" " + data[8 + length :]
    path.write_bytes(shifted)
    checkpoint = open_checkpoint(folder)
    assert all(source.offset % 4 for source in checkpoint.tensors.values())
    module, _ = load_module(checkpoint)
    assert np.array_equal(module.lm_head.weight.numpy(), weights["lm_head.weight"])
    assert module([1, 2]).shape == (2, 19)


def test_progress(folder: Path) -> None:
    seen: list[LoadProgress] = []
    _load(folder, progress=seen.append)
    weights = [item for item in seen if item.stage == "weights"]
    assert [item.tensors for item in weights] == list(range(1, len(weights_for(LLAMA)) + 1))
    assert weights[-1].nbytes == weights[-1].total_nbytes == sum(w.nbytes for w in weights_for(LLAMA).values())
    assert [item.stage for item in seen[-2:]] == ["compile", "done"]


def test_cancelling(folder: Path) -> None:
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        asked += 1
        return asked > 3

    with pytest.raises(LoadCancelled, match="after 3 of"):
        _load(folder, cancelled=cancelled)


def test_options(folder: Path) -> None:
    assert _load(folder, context_length=17).program.context_length == 17
    with pytest.raises(errors.InvalidConfig, match="context_length is 0"):
        _load(folder, context_length=0)
    with pytest.raises(errors.InvalidConfig, match=r"dtype is 'int4'.*bfloat16"):
        _load(folder, dtype="int4")
    with pytest.raises(errors.InvalidConfig, match="kv_dtype"):
        _load(folder, kv_dtype="bool")
    with pytest.raises(errors.DeviceNotAvailable):
        _load(folder, device="cuda:99")
    with pytest.raises(errors.InvalidConfig, match=r"kv_dtype is 'float8_e5m2'.*float8_e4m3"):
        _load(folder, kv_dtype="float8_e5m2")
    half = _load(folder, kv_dtype="bf16")
    assert half.program.kv_bytes_per_token == 2 * 2 * 4 * 2
    for name in ("fp8", "fp8_e4m3", "float8_e4m3"):
        for device in ("cpu", "null"):
            coded = _load(folder, kv_dtype=name, device=device)
            assert coded.program.kv_bytes_per_token == 2 * 2 * 4
            assert coded.program.kv_layers[0]["dtype"] == "float8_e4m3"


def _broken(tmp_path: Path, change: Any, **config: Any) -> Path:
    weights: dict[str, Any] = dict(weights_for(LLAMA))
    change(weights)
    return write_checkpoint(tmp_path, {**LLAMA, **config}, weights)


def test_missing_tensor(tmp_path: Path) -> None:
    folder = _broken(tmp_path, lambda w: w.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(errors.MissingTensor, match=r"model\.layers\.1\.mlp\.up_proj\.weight") as caught:
        _load(folder)
    assert caught.value.names == ("model.layers.1.mlp.up_proj.weight",)
    assert caught.value.path == str(folder)


def test_extra_tensor(tmp_path: Path) -> None:
    folder = _broken(tmp_path, lambda w: w.update({"model.layers.0.mlp.up_proj.bias": np.zeros(20, np.float32)}))
    with pytest.raises(errors.UnsupportedFormat, match=r"does not know: model\.layers\.0\.mlp\.up_proj\.bias"):
        _load(folder)
    rope = "model.layers.0.self_attn.rotary_emb.inv_freq"
    _load(_broken(tmp_path / "old", lambda w: w.update({rope: np.zeros(2, np.float32)})))


def test_wrong_shape(tmp_path: Path) -> None:
    folder = _broken(tmp_path, lambda w: w.update({"model.norm.weight": np.zeros(13, np.float32)}))
    with pytest.raises(errors.CorruptFile, match=r"model\.norm\.weight has shape \[13\] but .* \[12\]"):
        _load(folder)
    with pytest.raises(errors.CorruptFile, match=r"embed_tokens\.weight has shape \[19, 12\] but .* \[23, 12\]"):
        _load(_broken(tmp_path / "vocabulary", lambda w: None, vocab_size=23))


def test_wrong_dtype(tmp_path: Path) -> None:
    folder = _broken(tmp_path, lambda w: w.update({"model.norm.weight": np.zeros(12, np.int32)}))
    with pytest.raises(errors.UnsupportedFormat, match=r"model\.norm\.weight is I32"):
        _load(folder)


def test_unknown_architecture(tmp_path: Path) -> None:
    folder = _broken(tmp_path, lambda w: None, architectures=["MambaForCausalLM"])
    with pytest.raises(errors.UnsupportedArchitecture, match="'MambaForCausalLM' is not known") as caught:
        _load(folder)
    assert "LlamaForCausalLM" in caught.value.known


def test_quantized_checkpoint(tmp_path: Path) -> None:
    folder = _broken(tmp_path, lambda w: None, quantization_config={"quant_method": "gptq"})
    with pytest.raises(errors.UnsupportedFormat, match="quantized"):
        _load(folder)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"hidden_size": None}, "'hidden_size'"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers is 'two'"),
        ({"num_attention_heads": 0}, "num_attention_heads is 0"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "cannot share"),
        ({"hidden_act": "mish"}, "mish"),
        ({"rope_scaling": {"rope_type": "spiral"}}, "spiral"),
        ({"rope_theta": "big"}, "rope_theta"),
        ({"head_dim": 5}, "5"),
    ],
    ids=str,
)
def test_faulty_config(tmp_path: Path, change: dict[str, Any], text: str) -> None:
    with pytest.raises(errors.FastLLMError, match=text):
        _load(_broken(tmp_path, lambda w: None, **change))


HOSTILE: list[Any] = [None, 0, -1, 1, 2.5, 1e30, 1e308, 10**40, True, "x", "", [], [1], {}, {"factor": 0}, float("nan")]
GEMMA = {**LLAMA, "head_dim": 4, "query_pre_attn_scalar": 7.0, "sliding_window": 5, "layer_types": None}
ROPE = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
SOUND: dict[str, dict[str, Any]] = {
    "LlamaForCausalLM": {**LLAMA, "rope_theta": 1e4, "rope_scaling": None, "head_dim": 4, "hidden_act": "silu"},
    "Qwen2ForCausalLM": {**LLAMA, "use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1},
    "Gemma3ForCausalLM": {**GEMMA, "rope_local_base_freq": 1e4, "sliding_window_pattern": 2},
    "Gemma2ForCausalLM": {**GEMMA, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
    "Phi3ForCausalLM": {**LLAMA, "partial_rotary_factor": 1.0, "rope_parameters": {**ROPE, "rope_theta": 1e4}},
    "GPT2LMHeadModel": {"vocab_size": 19, "n_embd": 12, "n_head": 3, "n_layer": 2, "n_positions": 32, "n_inner": 20},
}


@pytest.mark.parametrize("architecture", SOUND)
def test_hostile_configs_give_typed_errors(architecture: str, tmp_path: Path) -> None:
    """Every value of a config replaced by every kind of nonsense: it loads, or one of our errors says why not."""
    config = {**SOUND[architecture], "architectures": [architecture]}
    folder = write_checkpoint(tmp_path, config, weights_for(config))
    refused: list[str] = []
    for name in config:
        for value in HOSTILE:
            (folder / "config.json").write_text(json.dumps({**config, name: value}))
            try:
                loaded = _load(folder)
            except errors.FastLLMError as error:
                refused.append(str(error))
            else:
                assert loaded.program.context_length >= 1
    assert len(refused) > 3 * len(config)
    assert [text for text in refused if not text.startswith("[")] == []


def test_vocabulary_larger_than_the_embedding(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    folder = write_checkpoint(tmp_path, LLAMA, weights_for(LLAMA))
    vocabulary = {f"w{index}": index for index in range(20)}
    tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w0")).save(str(folder / "tokenizer.json"))
    with pytest.raises(errors.CorruptFile, match="20 tokens .* 19 rows"):
        _load(folder)


def test_special_tokens_beyond_the_embedding_are_noted(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    folder = write_checkpoint(tmp_path, LLAMA, weights_for(LLAMA))
    vocabulary = {f"w{index}": index for index in range(19)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w0"))
    tokenizer.add_special_tokens(["<image>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    loaded = _load(folder)
    assert loaded.tokenizer is not None
    assert loaded.tokenizer.vocab_size == 20
    assert "1 special tokens" in loaded.info.notes[0]


def test_a_class_from_a_script_loads_like_a_built_in_one(tmp_path: Path) -> None:
    @nn.register("HandMadeForCausalLM")
    class HandMade(nn.Model):
        def __init__(self, config: nn.Config) -> None:
            super().__init__(config)
            self.table = nn.Embedding(config.integer("vocab_size"), 8)
            self.attention = nn.Attention(8, heads=2, kv_heads=1, head_dim=4, layer=0, rotary=nn.RotaryEmbedding(4))
            self.out = nn.Linear(8, config.integer("vocab_size"))

        def forward(self, ids: Any, step: nn.Step) -> Any:
            x = self.table(ids)
            return self.out(x + self.attention(x, step))

    config = {"architectures": ["HandMadeForCausalLM"], "vocab_size": 11, "max_position_embeddings": 32}
    loaded = _load(write_checkpoint(tmp_path, config, weights_for(config)))
    assert loaded.info.architecture == "HandMadeForCausalLM"
    assert loaded.program.vocab_size == 11
    step = loaded.module.new_step()
    once = loaded.module([3, 1, 4, 1, 5]).numpy()
    pieces = [loaded.module(piece, step).numpy() for piece in ([3, 1], [4], [1, 5])]
    assert np.allclose(np.concatenate(pieces), once, atol=1e-6)


def test_stories_model(shared: Any) -> None:
    """A trained model, against logits computed apart from this project."""
    folder = shared("models/stories260K")
    loaded = _load(folder / "hf")
    assert loaded.tokenizer is not None
    reference = np.load(folder / "reference.npz")
    for index in range(5):
        expected = reference[f"logits_{index}"]
        actual = loaded.module(reference[f"ids_{index}"].tolist()).numpy()
        assert np.abs(actual - expected).max() < 1e-4 * np.ptp(expected)
