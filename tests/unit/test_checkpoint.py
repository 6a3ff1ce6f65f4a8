"""Checkpoint directories: layouts, configuration styles, rope parameters against transformers, and every fault."""

from __future__ import annotations

import json
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastllm import hub
from fastllm.errors import CorruptFile, FastLLMError, LoadError, MissingTensor, UnsupportedFormat
from fastllm.formats import RopeConfig, check_vocabulary, open_checkpoint, rope_config

CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 8, "eos_token_id": 2}


def save(path: Path, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    """Writes a safetensors file by hand, float32 only."""
    header: dict[str, Any] = {}
    data = b""
    for name, array in tensors.items():
        raw = array.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound checkpoint in one file."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    save(path / "model.safetensors", {"embed": np.arange(16.0).reshape(8, 2), "norm": np.ones(2)})
    return path


def shard(path: Path) -> dict[str, str]:
    """Turns the fixture's weights into two shards with an index."""
    (path / "model.safetensors").unlink()
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    save(path / names[0], {"embed": np.arange(16.0).reshape(8, 2)})
    save(path / names[1], {"norm": np.ones(2), "head": np.full((2, 2), 3.0)})
    weight_map = {"embed": names[0], "norm": names[1], "head": names[1]}
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return weight_map


# --- layouts ---------------------------------------------------------------------------------------------------------


def test_single_file(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    assert checkpoint.path == folder and checkpoint.architecture == "LlamaForCausalLM" and checkpoint.config == CONFIG
    assert set(checkpoint.tensors) == {"embed", "norm"} and checkpoint.nbytes == 18 * 4
    got = np.frombuffer(checkpoint.tensors["embed"].buffer(), "<f4").reshape(8, 2)
    np.testing.assert_array_equal(got, np.arange(16.0).reshape(8, 2))
    assert "LlamaForCausalLM" in repr(checkpoint) and "tensors=2" in repr(checkpoint)


def test_real_checkpoint_agrees_with_the_library(shared: Callable[[str], Path]) -> None:
    numpy_io = pytest.importorskip("safetensors.numpy")
    path = shared("models/stories260K/hf")
    checkpoint = open_checkpoint(path)
    expected = numpy_io.load_file(path / "model.safetensors")
    assert set(checkpoint.tensors) == set(expected)
    for name, array in expected.items():
        source = checkpoint.tensors[name]
        assert source.dtype == "F32"
        np.testing.assert_array_equal(np.frombuffer(source.buffer(), "<f4").reshape(source.shape), array)
    assert checkpoint.dtype == "float32" and checkpoint.generation_config == {"bos_token_id": 1, "eos_token_id": 2}
    assert checkpoint.rope() == RopeConfig(theta=10000.0, max_position=512)


def test_shards(folder: Path) -> None:
    weight_map = shard(folder)
    checkpoint = open_checkpoint(str(folder))
    assert {name: Path(tensor.file).name for name, tensor in checkpoint.tensors.items()} == weight_map
    assert checkpoint.nbytes == (16 + 2 + 4) * 4


def test_shards_without_index_and_other_names(folder: Path) -> None:
    shard(folder)
    (folder / "model.safetensors.index.json").unlink()
    assert set(open_checkpoint(folder).tensors) == {"embed", "norm", "head"}
    (folder / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(LoadError, match=r"1 of 2 weight files are missing: model-00001-of-00002"):
        open_checkpoint(folder)
    (folder / "model-00002-of-00002.safetensors").rename(folder / "weights.safetensors")
    assert set(open_checkpoint(folder).tensors) == {"norm", "head"}


def test_adapter_weights_beside_the_model_are_left_alone(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    save(folder / "adapter_model.safetensors", {"lora": np.ones(3)})
    assert set(open_checkpoint(folder).tensors) == {"embed", "norm"}


def test_require_names_all_that_is_missing(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    assert [tensor.name for tensor in checkpoint.require("norm", "embed")] == ["norm", "embed"]
    with pytest.raises(MissingTensor, match="lacks q, k") as caught:
        checkpoint.require("norm", "q", "k")
    assert caught.value.names == ("q", "k")


# --- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"torch_dtype": "bfloat16"}, "bfloat16"),
        ({"dtype": "float16"}, "float16"),
        ({"torch_dtype": "torch.float32"}, "float32"),
        ({"text_config": {"dtype": "bfloat16"}}, "bfloat16"),
        ({}, None),
    ],
)
def test_dtype_in_old_and_new_style(folder: Path, extra: dict[str, Any], expected: str | None) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, **extra}))
    assert open_checkpoint(folder).dtype == expected


def test_text_config_is_laid_over_the_top(folder: Path) -> None:
    config = {**CONFIG, "hidden_size": 1, "text_config": {"hidden_size": 64, "rope_theta": 5e5}, "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(config))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config == config
    assert checkpoint.text_config["hidden_size"] == 64 and checkpoint.text_config["vocab_size"] == 8
    assert "text_config" not in checkpoint.text_config
    assert checkpoint.rope().theta == 5e5


def test_quantization_is_reported(folder: Path) -> None:
    assert open_checkpoint(folder).quantization is None
    (folder / "config.json").write_text(json.dumps({**CONFIG, "quantization_config": {"quant_method": "gptq"}}))
    assert open_checkpoint(folder).quantization == "gptq"
    (folder / "config.json").write_text(json.dumps({**CONFIG, "text_config": {"quantization_config": {}}}))
    assert open_checkpoint(folder).quantization is None


def test_architecture_falls_back_to_the_model_type(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    assert open_checkpoint(folder).architecture == "gpt2"
    (folder / "config.json").write_text('{"architectures": null, "vocab_size": 3}')
    with pytest.raises(CorruptFile, match="neither architectures nor model_type"):
        open_checkpoint(folder)


def test_generation_config(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, "temperature": 0.5, "bos_token_id": 1}))
    assert open_checkpoint(folder).generation_config == {"temperature": 0.5, "bos_token_id": 1, "eos_token_id": 2}
    (folder / "generation_config.json").write_text('{"top_p": 0.9, "eos_token_id": [2, 7]}')
    # The file's own values win; config.json still fills in ids that it lacks, but no sampling values.
    assert open_checkpoint(folder).generation_config == {"top_p": 0.9, "eos_token_id": [2, 7], "bos_token_id": 1}


def test_vocabulary_larger_than_embedding() -> None:
    check_vocabulary(500, 512)
    check_vocabulary(512, 512)
    with pytest.raises(CorruptFile, match="tokenizer has 513 tokens but the embedding has 512 rows"):
        check_vocabulary(513, 512, path="x")


# --- rope ------------------------------------------------------------------------------------------------------------

SCALINGS: dict[str, dict[str, Any]] = {
    "default": {"rope_theta": 10000.0},
    "other_base": {"rope_theta": 500000.0, "partial_rotary_factor": 0.5},
    "linear": {"rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "dynamic": {"rope_theta": 10000.0, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    "llama3": {
        "rope_theta": 500000.0,
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
    "yarn": {"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}},
    "yarn_mscale": {
        "rope_theta": 1000.0,
        "rope_scaling": {
            "rope_type": "yarn",
            "factor": 40.0,
            "beta_fast": 16,
            "beta_slow": 2,
            "mscale": 0.7,
            "mscale_all_dim": 1.1,
            "original_max_position_embeddings": 64,
            "truncate": False,
        },
    },
    "yarn_factor": {
        "rope_scaling": {
            "type": "yarn",
            "factor": 4.0,
            "attention_factor": 1.25,
            "original_max_position_embeddings": 32,
        }
    },
    "longrope": {
        "rope_scaling": {
            "type": "longrope",
            "factor": 4.0,
            "short_factor": [1.0 + 0.1 * index for index in range(8)],
            "long_factor": [1.5 + 0.3 * index for index in range(8)],
            "original_max_position_embeddings": 64,
        }
    },
}


def _llama(extra: dict[str, Any]) -> dict[str, Any]:
    config = {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 256, "model_type": "llama"}
    return {**config, **json.loads(json.dumps(extra))}


def _reference(config: Any, length: int | None, layer_type: str | None = None) -> tuple[list[float], float]:
    """transformers' own frequencies for a config object."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = config.rope_parameters[layer_type] if layer_type else config.rope_parameters
    kind = parameters["rope_type"]
    if kind == "default":
        head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        dim = int(head_dim * parameters.get("partial_rotary_factor", 1.0))
        return [parameters["rope_theta"] ** (-index / dim) for index in range(0, dim, 2)], 1.0
    frequencies, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=length, layer_type=layer_type)
    return frequencies.tolist(), factor


@pytest.mark.parametrize("length", [None, 32, 200, 1000])
@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize("style", ["old", "new"])
def test_rope_equals_transformers(name: str, style: str, length: int | None) -> None:
    transformers = pytest.importorskip("transformers")
    config = _llama(SCALINGS[name])
    reference = transformers.LlamaConfig(**json.loads(json.dumps(config)))
    if style == "new":  # what transformers 5 writes back is the new style
        config = json.loads(json.dumps(reference.to_dict()))
        assert "rope_parameters" in config and "rope_scaling" not in config and "rope_theta" not in config
    rope = rope_config(config)
    if name == "default":
        assert rope.type == "default"
    frequencies, factor = _reference(reference, length)
    np.testing.assert_allclose(rope.inverse_frequencies(16, length=length), frequencies, rtol=2e-6)
    assert rope.attention_factor == pytest.approx(factor, rel=1e-6)


def test_rope_of_phi3_counts_its_factor_from_the_lengths() -> None:
    transformers = pytest.importorskip("transformers")
    config = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
        "original_max_position_embeddings": 128,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "su", "short_factor": [1.1] * 8, "long_factor": [2.5] * 8},
    }
    # Old checkpoints call it "su", which transformers 5 no longer takes from a configuration.
    renamed = json.loads(json.dumps(config).replace('"su"', '"longrope"'))
    reference = transformers.Phi3Config(**renamed, pad_token_id=0)
    rope = rope_config(config)
    assert rope.type == "longrope" and rope.factor == 4.0 and rope.original_max_position == 128
    for length in (100, 300):
        frequencies, factor = _reference(reference, length)
        np.testing.assert_allclose(rope.inverse_frequencies(16, length=length), frequencies, rtol=2e-6)
        assert rope.attention_factor == pytest.approx(factor)


@pytest.mark.parametrize("style", ["old", "new"])
@pytest.mark.parametrize("kind", ["full_attention", "sliding_attention"])
def test_rope_of_gemma3_has_two(kind: str, style: str) -> None:
    transformers = pytest.importorskip("transformers")
    config: dict[str, Any] = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "head_dim": 16,
        "num_hidden_layers": 6,
        "rope_theta": 1e6,
        "rope_local_base_freq": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    reference = transformers.Gemma3TextConfig(**json.loads(json.dumps(config)))
    if style == "new":
        config = json.loads(json.dumps(reference.to_dict()))
        assert set(config["rope_parameters"]) == {"full_attention", "sliding_attention"}
    rope = rope_config(config, kind)
    frequencies, _ = _reference(reference, None, kind)
    np.testing.assert_allclose(rope.inverse_frequencies(16), frequencies, rtol=2e-6)
    assert rope.theta == (1e6 if kind == "full_attention" else 1e4)
    assert rope_config(config) == rope_config(config, "full_attention")


def test_rope_defaults_are_the_architectures() -> None:
    assert rope_config({}).theta == 10000.0
    assert rope_config({}, default_theta=1e6).theta == 1e6
    assert rope_config({"rope_theta": 7.0}, default_theta=1e6).theta == 7.0
    assert rope_config({"rope_scaling": None, "rope_parameters": None}).type == "default"
    assert rope_config({}, default_partial=0.25).rotary_dim(80) == 20
    assert rope_config({"rotary_pct": 0.5}).rotary_dim(80) == 40


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"rope_scaling": {"type": "spiral", "factor": 2}}, "unknown kind of rope scaling 'spiral'"),
        ({"rope_scaling": {"type": "linear"}}, "linear scaling has no factor"),
        ({"rope_scaling": {"type": "linear", "factor": "big"}}, "factor is 'big'"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "factor is 0.0"),
        ({"rope_scaling": {"type": "linear", "factor": True}}, "factor is True"),
        ({"rope_scaling": {"type": "llama3", "factor": 8}}, "needs original_max_position_embeddings"),
        ({"rope_scaling": {"type": "longrope"}, "max_position_embeddings": 9}, "short_factor and long_factor"),
        ({"rope_scaling": [1]}, "instead of an object"),
        ({"rope_theta": 0}, "theta is 0.0"),
        ({"rope_theta": float("inf")}, "rope_theta is inf"),
        ({"partial_rotary_factor": 1.5}, "partial_rotary_factor is 1.5"),
        ({"max_position_embeddings": 1.5}, "instead of a positive integer"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 3}}}, "has no 'sliding_attention'"),
    ],
)
def test_rope_faults(config: dict[str, Any], words: str) -> None:
    with pytest.raises(LoadError, match=words):
        rope_config(config, "sliding_attention" if "has no" in words else None)


_numbers = st.none() | st.booleans() | st.integers(-5, 10**12) | st.floats() | st.text(max_size=3)
_scalings = st.fixed_dictionaries(
    {},
    optional={
        "rope_type": st.sampled_from(["default", "linear", "dynamic", "llama3", "yarn", "longrope", "su", "x"]),
        "factor": _numbers | st.floats(1, 64),
        "rope_theta": _numbers | st.floats(2, 1e6),
        "original_max_position_embeddings": _numbers | st.integers(2, 4096),
        "low_freq_factor": _numbers,
        "high_freq_factor": _numbers,
        "beta_fast": _numbers,
        "beta_slow": _numbers,
        "attention_factor": _numbers,
        "mscale": _numbers,
        "mscale_all_dim": _numbers,
        "short_factor": st.lists(st.floats() | st.floats(0.5, 9), min_size=8, max_size=8) | _numbers,
        "long_factor": st.lists(st.floats(0.5, 9), min_size=8, max_size=8),
        "partial_rotary_factor": _numbers,
    },
)


@settings(max_examples=400, deadline=None)
@given(scaling=_scalings | _numbers, outer=_scalings, length=st.none() | st.integers(0, 10**6))
def test_any_rope_is_read_or_refused(scaling: Any, outer: dict[str, Any], length: int | None) -> None:
    config = {**outer, "rope_scaling": scaling, "max_position_embeddings": outer.get("beta_fast")}
    try:
        rope = rope_config(config)
        frequencies = rope.inverse_frequencies(16, length=length)
    except FastLLMError:
        return
    assert len(frequencies) == (rope.rotary_dim(16) + 1) // 2
    assert np.isfinite(frequencies).all() and np.isfinite(rope.attention_factor)


# --- faults ----------------------------------------------------------------------------------------------------------


def refused(path: str | Path, kind: type[FastLLMError], *words: str) -> FastLLMError:
    with pytest.raises(kind) as caught:
        open_checkpoint(path)
    assert type(caught.value) is kind
    for word in words:
        assert word in str(caught.value)
    assert caught.value.hint
    return caught.value


def test_corrupt_config_names_file_and_line(folder: Path) -> None:
    (folder / "config.json").write_text('{\n "a": 1,\n "b": oops\n}')
    refused(folder, CorruptFile, "config.json", "line 3, column 7")
    (folder / "config.json").write_text("")
    refused(folder, CorruptFile, "config.json", "empty")
    (folder / "config.json").write_bytes(b'{"a": "\xff"}')
    refused(folder, CorruptFile, "byte 7 of 10 (0xFF) is not UTF-8")
    (folder / "config.json").write_text("[1]")
    refused(folder, CorruptFile, "holds a JSON list")
    (folder / "config.json").write_text("[" * 100_000)
    refused(folder, CorruptFile, "config.json")


def test_config_with_a_byte_order_mark_is_read(folder: Path) -> None:
    (folder / "config.json").write_text("\ufeff" + json.dumps(CONFIG))
    assert open_checkpoint(folder).config == CONFIG


def test_wrong_places(folder: Path, tmp_path: Path) -> None:
    refused(tmp_path, LoadError, "no config.json", f"Did you mean {folder}")
    refused(folder / "model.safetensors", LoadError, "is a file", f"Give its directory instead: {folder}")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, LoadError, "the directory is empty")
    (empty / "notes.txt").write_text("x")
    refused(empty, LoadError, "only notes.txt")
    (empty / "adapter_config.json").write_text("{}")
    refused(empty, LoadError, "an adapter, not a model")
    refused(tmp_path / "modle", LoadError, "does not exist", f"Did you mean {folder}")
    refused(tmp_path / "x.gguf", LoadError, "does not exist")
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    refused(tmp_path / "x.gguf", UnsupportedFormat, "GGUF")
    refused("", LoadError, "is not a path")
    refused("a\0b", LoadError, "is not a path")


def test_cache_folder_of_the_hub_points_to_the_snapshot(folder: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--org--name"
    (cache / "snapshots").mkdir(parents=True)
    folder.rename(cache / "snapshots" / "abc123")
    refused(cache, LoadError, f"Did you mean {cache / 'snapshots' / 'abc123'}")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pth", "tf_model.h5", "flax_model.msgpack", "model.gguf"])
def test_other_weights_say_how_to_convert(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    error = refused(folder, UnsupportedFormat, f"no safetensors file, only {name}")
    assert "save_pretrained" in error.hint


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(folder, LoadError, "no weights")
    save(folder / "one.safetensors", {"a": np.ones(1)})
    save(folder / "two.safetensors", {"b": np.ones(1)})
    refused(folder, LoadError, "2 safetensors files", "no model.safetensors.index.json")


def test_missing_and_foreign_shards(folder: Path) -> None:
    weight_map = shard(folder)
    index = folder / "model.safetensors.index.json"
    second = folder / "model-00002-of-00002.safetensors"
    content = second.read_bytes()
    second.unlink()
    refused(folder, LoadError, "1 of 2 weight files are missing: model-00002-of-00002.safetensors")
    second.write_bytes(content[:-4])
    error = refused(folder, CorruptFile, str(second))
    assert "ownload it again" in error.hint
    save(second, {"norm": np.ones(2)})
    assert isinstance(refused(folder, MissingTensor, "'head'", "no file has it"), MissingTensor)
    save(second, {"norm": np.ones(2), "head": np.ones(2), "embed": np.ones(2)})
    refused(folder, CorruptFile, "'embed' is both in")
    for bad in ("../model.safetensors", "/etc/passwd", "", 3, "a/b.safetensors", ".."):
        index.write_text(json.dumps({"weight_map": {**weight_map, "norm": bad}}))
        refused(folder, CorruptFile, "no file name of this directory")
    index.write_text(json.dumps({"weight_map": {}}))
    refused(folder, CorruptFile, "no weight_map")
    index.write_text('{"weight_map": ')
    refused(folder, CorruptFile, "index.json", "line 1")


def test_truncated_weights(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    for size in (0, 5, 60, len(data) - 1):
        (folder / "model.safetensors").write_bytes(data[:size])
        refused(folder, CorruptFile, "model.safetensors")


def test_corrupt_generation_config(folder: Path) -> None:
    (folder / "generation_config.json").write_text('{"top_p": }')
    refused(folder, CorruptFile, "generation_config.json", "line 1")


# --- names -----------------------------------------------------------------------------------------------------------


def test_demo_is_the_packaged_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)  # a folder of that name in the working directory does not hide it
    packaged = Path(hub.__file__).parent / "demo"
    if packaged.is_dir():
        assert hub.resolve("demo") == packaged
    else:
        with pytest.raises(LoadError, match="demo model is not at"):
            hub.resolve("demo")
    assert hub.resolve("./demo") == Path("demo")
    assert hub.resolve(Path("demo")) == Path("demo")


def _fake_hub(monkeypatch: pytest.MonkeyPatch, answer: Callable[..., str]) -> None:
    module = types.ModuleType("huggingface_hub")
    module.snapshot_download = answer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)


def test_repository_is_downloaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def snapshot_download(repo: str, **options: Any) -> str:
        asked.update(options, repo=repo)
        return str(folder)

    _fake_hub(monkeypatch, snapshot_download)
    checkpoint = open_checkpoint("some-org/some.model_1", revision="v2")
    assert checkpoint.path == folder
    assert asked["repo"] == "some-org/some.model_1" and asked["revision"] == "v2"
    assert "*.safetensors" in asked["allow_patterns"] and "*.bin" not in asked["allow_patterns"]


def test_existing_path_is_never_downloaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent.parent)

    def snapshot_download(*_: Any, **__: Any) -> str:
        raise AssertionError("downloaded a local path")

    _fake_hub(monkeypatch, snapshot_download)
    assert open_checkpoint(f"{folder.parent.name}/model").architecture == "LlamaForCausalLM"


def test_without_huggingface_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    refused("org/name", LoadError, "huggingface_hub is not installed", "pip install huggingface_hub")


@pytest.mark.parametrize("name", ["./org/name", "/no/such/dir", "one", "a/b/c", "org/", "~/nothing-here"])
def test_paths_are_not_taken_for_repositories(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: Any, **__: Any) -> str:
        raise AssertionError("downloaded a local path")

    _fake_hub(monkeypatch, snapshot_download)
    refused(name, LoadError, "does not exist")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("GatedRepoError", "is gated"),
        ("RepositoryNotFoundError", "neither a local path nor a repository"),
        ("RevisionNotFoundError", "has no revision 'v9'"),
        ("LocalEntryNotFoundError", "cannot be reached"),
        ("OfflineModeIsEnabled", "offline mode is on"),
        ("HFValidationError", "not a valid repository name"),
    ],
)
def test_errors_of_the_hub_are_translated(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the real package's classes, so that a renamed class fails here."""
    errors = pytest.importorskip("huggingface_hub.errors")
    error_class = getattr(errors, name)

    def snapshot_download(*_: Any, **__: Any) -> str:
        raise error_class.__new__(error_class)

    _fake_hub(monkeypatch, snapshot_download)
    with pytest.raises(LoadError, match=words) as caught:
        hub.resolve("org/name", "v9")
    assert caught.value.hint and caught.value.__cause__ is not None


def test_offline_download_with_the_real_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    refused("org/surely-not-cached", LoadError, "org/surely-not-cached", "local cache")


def test_other_failures_of_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def snapshot_download(*_: Any, **__: Any) -> str:
        raise OSError("No space left on device")

    _fake_hub(monkeypatch, snapshot_download)
    refused("org/name", LoadError, "could not be downloaded: No space left on device")

    def interrupted(*_: Any, **__: Any) -> str:
        raise KeyboardInterrupt

    _fake_hub(monkeypatch, interrupted)
    with pytest.raises(KeyboardInterrupt):
        hub.resolve("org/name")
