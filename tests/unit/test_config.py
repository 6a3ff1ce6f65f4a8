"""EngineConfig and GenerationConfig: checks, names, layers."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import pickle
import typing
import warnings
from pathlib import Path
from typing import Any

import pytest

from fastllm import config as config_module
from fastllm.config import AliasNotice, EngineConfig, GenerationConfig, GenerationFields
from fastllm.errors import InvalidConfig, LoadError


@pytest.fixture(autouse=True)
def _notices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_module, "_noticed", set())


# --- GenerationConfig


def test_the_keyword_arguments_are_the_fields_and_the_aliases() -> None:
    names = {item.name for item in dataclasses.fields(GenerationConfig)}
    aliases = {"max_tokens", "repeat_penalty", "do_sample"}
    assert set(typing.get_type_hints(GenerationFields, vars(config_module) | {"Unpack": Any})) == names | aliases
    assert list(inspect.signature(GenerationConfig).parameters) == [
        item.name for item in dataclasses.fields(GenerationConfig)
    ]
    for name in names:
        assert f"        {name}:" in (GenerationConfig.__doc__ or ""), f"{name} is not documented"
    for item in dataclasses.fields(EngineConfig):
        assert f"        {item.name}:" in (EngineConfig.__doc__ or ""), f"{item.name} is not documented"


def test_defaults() -> None:
    config = GenerationConfig()
    assert (config.max_new_tokens, config.temperature, config.top_k, config.top_p) == (256, 1.0, 0, 1.0)
    assert (config.seed, config.stop, config.n, config.echo) == (None, (), 1, False)
    assert config.given == frozenset()
    assert GenerationConfig.greedy(seed=1) == GenerationConfig(temperature=0.0, seed=1)


def test_it_is_frozen_hashable_picklable_and_says_what_was_given() -> None:
    config = GenerationConfig(temperature=0.5, stop="x", logit_bias={1: 2.0})
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.temperature = 1.0  # type: ignore[misc]
    for clone in (copy.copy(config), copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
        assert clone == config
        assert clone.given == config.given
        assert hash(clone) == hash(config)
    assert repr(config) == "GenerationConfig(temperature=0.5, stop=('x',), logit_bias={1: 2.0})"
    assert GenerationConfig(**config.to_dict()) == config
    json.dumps(config.to_dict() | {"logit_bias": None})
    assert config.replace(temperature=0.7).temperature == 0.7
    assert config.replace(temperature=0.7).stop == ("x",)
    with pytest.raises(InvalidConfig):
        config.replace(temperature=-1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0), ("max_new_tokens", 1.5), ("max_new_tokens", True), ("min_new_tokens", -1),
        ("temperature", -0.1), ("temperature", float("nan")), ("temperature", float("inf")), ("temperature", "1"),
        ("top_k", -1), ("top_p", 0), ("top_p", 1.1), ("min_p", -0.1), ("min_p", 2), ("typical_p", 0),
        ("repetition_penalty", 0), ("presence_penalty", 1e6), ("frequency_penalty", float("nan")),
        ("penalty_window", -1), ("no_repeat_ngram", -1), ("seed", -1), ("seed", 2**64), ("seed", "x"),
        ("stop", [""]), ("stop", [1]), ("stop_token_ids", [-1]), ("include_stop", 1), ("logit_bias", {-1: 1.0}),
        ("logit_bias", {1: float("inf")}), ("bad_words", [""]), ("logprobs", -1), ("logprobs_mode", "cooked"),
        ("prompt_logprobs", -1), ("n", 0), ("max_time_s", 0), ("lookahead", -1), ("lookahead", "some"), ("echo", None),
        ("max_length", 0),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_by_name(name: str, value: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AliasNotice)
        with pytest.raises(InvalidConfig) as caught:
            GenerationConfig(**{name: value})
    assert caught.value.fields[0].startswith(name)
    assert name in str(caught.value)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(
    ("typo", "meant"),
    [("temprature", "temperature"), ("max_new_token", "max_new_tokens"), ("topp", "top_p"), ("stops", "stop")],
)
def test_unknown_names_get_a_suggestion(typo: str, meant: str) -> None:
    with pytest.raises(InvalidConfig, match=f"Did you mean '{meant}'"):
        GenerationConfig(**{typo: 1})  # type: ignore[misc]
    with pytest.raises(TypeError):
        GenerationConfig(**{typo: 1})  # type: ignore[misc]
    with pytest.raises(InvalidConfig):
        GenerationConfig().merged(None, **{typo: 1})  # type: ignore[misc]


def test_aliases_are_understood_and_told_once() -> None:
    with pytest.warns(AliasNotice, match="max_tokens is understood as max_new_tokens"):
        assert GenerationConfig(max_tokens=5) == GenerationConfig(max_new_tokens=5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert GenerationConfig(max_tokens=6).max_new_tokens == 6
    with pytest.warns(AliasNotice, match="repetition_penalty"):
        assert GenerationConfig(repeat_penalty=1.2).repetition_penalty == 1.2
    with pytest.warns(AliasNotice, match="do_sample"):
        assert GenerationConfig(do_sample=False).temperature == 0.0
    with pytest.warns(AliasNotice, match="max_length"):
        assert GenerationConfig(max_length=100).max_length == 100


@pytest.mark.parametrize(
    ("given", "fields"),
    [
        ({"max_length": 10, "max_new_tokens": 5}, {"max_length", "max_new_tokens"}),
        ({"max_tokens": 10, "max_new_tokens": 5}, {"max_tokens", "max_new_tokens"}),
        ({"repeat_penalty": 1.1, "repetition_penalty": 1.2}, {"repeat_penalty", "repetition_penalty"}),
        ({"do_sample": False, "temperature": 0.5}, {"do_sample", "temperature"}),
        ({"do_sample": True, "temperature": 0.0}, {"do_sample", "temperature"}),
        ({"min_new_tokens": 10, "max_new_tokens": 5}, {"min_new_tokens", "max_new_tokens"}),
    ],
)
def test_contradictions_name_both_fields(given: dict[str, Any], fields: set[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AliasNotice)
        with pytest.raises(InvalidConfig) as caught:
            GenerationConfig(**given)
    assert set(caught.value.fields) == fields
    assert all(name in str(caught.value) for name in fields)


def test_layers_only_what_was_given_wins() -> None:
    model = GenerationConfig(temperature=0.6, top_p=0.9, max_new_tokens=100)
    merged = model.merged(GenerationConfig(top_p=1.0), max_new_tokens=5)
    assert (merged.temperature, merged.top_p, merged.max_new_tokens) == (0.6, 1.0, 5)
    assert merged.given == {"temperature", "top_p", "max_new_tokens"}
    assert model.merged(None) is model
    assert model.merged(GenerationConfig()) == model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AliasNotice)
        assert model.merged(None, max_length=50).max_new_tokens == 256, "the one limit displaces the other"
        assert model.merged(None, max_length=50).max_length == 50
        assert model.merged(None, do_sample=True).temperature == 0.6, "sampling, at the model's temperature"
        assert model.merged(None, do_sample=False).temperature == 0.0
        greedy = GenerationConfig(temperature=0.0)
        assert greedy.merged(None, do_sample=True).temperature == 1.0
        assert model.merged(GenerationConfig(do_sample=True)).temperature == 0.6


def test_from_pretrained_reads_names_of_transformers(tmp_path: Path) -> None:
    assert GenerationConfig.from_pretrained(tmp_path) == GenerationConfig()
    file = tmp_path / "generation_config.json"
    data = {
        "do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.05,
        "eos_token_id": [1, 2], "bos_token_id": 0, "transformers_version": "5.0", "no_repeat_ngram_size": 3,
        "stop_strings": ["END"], "max_length": 4096, "num_beams": None,
    }  # fmt: skip
    file.write_text(json.dumps(data))
    config = GenerationConfig.from_pretrained(tmp_path)
    assert (config.temperature, config.top_k, config.top_p, config.repetition_penalty) == (0.6, 20, 0.95, 1.05)
    assert (config.no_repeat_ngram, config.stop, config.max_length) == (3, ("END",), 4096)
    file.write_text(json.dumps({"do_sample": False, "temperature": 0.7, "max_length": 20, "max_new_tokens": 7}))
    config = GenerationConfig.from_pretrained(file)
    assert (config.temperature, config.max_new_tokens, config.max_length) == (0.0, 7, None)
    file.write_text("{")
    with pytest.raises(LoadError, match="not JSON"):
        GenerationConfig.from_pretrained(tmp_path)
    file.write_text("[]")
    with pytest.raises(LoadError, match="not an object"):
        GenerationConfig.from_pretrained(tmp_path)
    with pytest.raises(LoadError, match="does not exist"):
        GenerationConfig.from_pretrained(tmp_path / "nowhere.json")


def test_transformers_reads_the_same_from_its_own_file(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.GenerationConfig(temperature=0.3, top_k=7, top_p=0.8, do_sample=True, max_new_tokens=33)
    theirs.save_pretrained(tmp_path)
    ours = GenerationConfig.from_pretrained(tmp_path)
    for name in ("temperature", "top_k", "top_p", "max_new_tokens"):
        assert getattr(ours, name) == getattr(theirs, name)


# --- EngineConfig


def test_engine_config() -> None:
    config = EngineConfig()
    assert (config.max_running, config.kv_memory, config.block_tokens, config.max_batch_tokens) == (
        64,
        "auto",
        16,
        2048,
    )
    assert (config.prefill_chunk, config.max_queue, config.lookahead, config.threads) == (512, 1024, 256, None)
    assert config.replace(threads=2) == EngineConfig(threads=2)
    assert EngineConfig(**config.to_dict()) == config
    assert pickle.loads(pickle.dumps(config)) == copy.copy(config) == config
    assert len({config, EngineConfig()}) == 1
    with pytest.raises(TypeError, match="unknown field 'max_runing'.*Did you mean 'max_running'"):
        EngineConfig(max_runing=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        EngineConfig(3)  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.threads = 4  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_running", 0), ("kv_memory", "lots"), ("kv_memory", 0), ("block_tokens", 0), ("max_batch_tokens", 0),
        ("prefill_chunk", 0), ("max_queue", 0), ("lookahead", -1), ("threads", 0), ("deterministic", 1),
        ("cuda_graphs", "yes"), ("prefix_cache", "no"), ("context_length", 0), ("kv_dtype", "int3"),
        ("kv_dtype", "fp8_e5m2"),
    ],
)  # fmt: skip
def test_engine_values_out_of_range_are_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidConfig, match=name):
        EngineConfig(**{name: value})


def test_kv_dtypes_and_what_others_call_them() -> None:
    for name in ("auto", "float32", "float16", "bfloat16", "fp8", "fp8_e4m3"):
        assert EngineConfig(kv_dtype=name).kv_dtype == name
    with pytest.raises(TypeError, match="Did you mean 'kv_dtype'"):
        EngineConfig(kv_cache_dtype="fp8")  # type: ignore[call-arg]


def test_engine_contradiction_names_both() -> None:
    with pytest.raises(InvalidConfig) as caught:
        EngineConfig(max_running=100, max_batch_tokens=50)
    assert caught.value.fields == ("max_running", "max_batch_tokens")
