"""A Hugging Face checkpoint directory: configuration and mapped weights, checked before anything runs."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fastllm import hub
from fastllm.errors import CorruptFile, LoadError, MissingTensor, UnsupportedFormat
from fastllm.formats._files import read_json
from fastllm.formats.rope import RopeConfig, rope_config
from fastllm.formats.safetensors import open_safetensors
from fastllm.formats.source import TensorSource

__all__ = ["Checkpoint", "RopeConfig", "check_vocabulary", "open_checkpoint", "read_config", "rope_config"]

_INDEX = "model.safetensors.index.json"
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.safetensors")
#: Safetensors files that are not the model's own weights.
_NOT_WEIGHTS = re.compile(r"(adapter_|training_|optimizer|consolidated)")
_FOREIGN = {
    ".bin": "PyTorch pickle",
    ".pt": "PyTorch pickle",
    ".pth": "PyTorch pickle",
    ".h5": "TensorFlow",
    ".msgpack": "Flax",
    ".gguf": "GGUF",
    ".flm": "fastllm 1",
}
_CONVERT = (
    "Convert it to safetensors: transformers.AutoModelForCausalLM.from_pretrained(path).save_pretrained(new_path, "
    "safe_serialization=True)."
)
#: Sampling values that old checkpoints keep in config.json instead of generation_config.json.
_GENERATION_KEYS = (
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "typical_p",
    "repetition_penalty",
    "no_repeat_ngram_size",
    "max_length",
    "max_new_tokens",
    "min_length",
)


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """An opened checkpoint. Its weights stay mapped as long as one of ``tensors`` lives.

    Attributes:
        path: The directory.
        config: ``config.json`` as read.
        architecture: First entry of ``architectures``, or ``model_type`` where that is missing.
        generation_config: ``generation_config.json``; where it or one of its token ids is missing, the values that
            ``config.json`` has for them.
        tensors: Every tensor by name.
        nbytes: Bytes of all tensors.
    """

    path: Path
    config: dict[str, Any]
    architecture: str
    generation_config: dict[str, Any]
    tensors: Mapping[str, TensorSource]
    nbytes: int

    @property
    def text_config(self) -> dict[str, Any]:
        """The language model's configuration: ``text_config`` laid over the top level, if there is one."""
        nested = self.config.get("text_config")
        if not isinstance(nested, dict):
            return dict(self.config)
        return {**{key: value for key, value in self.config.items() if key != "text_config"}, **nested}

    @property
    def dtype(self) -> str | None:
        """Dtype the config names ("bfloat16"; key ``dtype`` or, older, ``torch_dtype``), or None."""
        for source in (self.config, self.text_config):
            value = source.get("dtype") or source.get("torch_dtype")
            if isinstance(value, str):
                return value.removeprefix("torch.")
        return None

    @property
    def quantization(self) -> str | None:
        """Method by which the weights are already quantized ("gptq", "awq", "fp8", ...), or None."""
        for source in (self.config, self.text_config):
            found = source.get("quantization_config") or source.get("compression_config")
            if isinstance(found, dict):
                return str(found.get("quant_method") or found.get("quant_type") or "unknown")
        return None

    def rope(self, layer_type: str | None = None, /, **defaults: float) -> RopeConfig:
        """The rotary parameters of ``text_config``; see ``rope_config``."""
        return rope_config(self.text_config, layer_type, **defaults)

    def require(self, *names: str) -> list[TensorSource]:
        """The tensors of these names.

        Raises:
            MissingTensor: Names all that are missing.
        """
        missing = [name for name in names if name not in self.tensors]
        if missing:
            raise missing_tensors(self, missing)
        return [self.tensors[name] for name in names]

    def __repr__(self) -> str:
        size = f"{self.nbytes / 1e6:.1f} MB"
        return f"Checkpoint({str(self.path)!r}, {self.architecture}, tensors={len(self.tensors)}, {size})"


def missing_tensors(checkpoint: Checkpoint, names: list[str]) -> MissingTensor:
    """The error for tensors that an architecture needs and the checkpoint lacks."""
    shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return MissingTensor(
        f"[load] {checkpoint.path} has {len(checkpoint.tensors)} tensors but lacks {shown}.",
        path=str(checkpoint.path),
        names=names,
        hint=f"Is this a complete checkpoint of {checkpoint.architecture}?",
    )


def open_checkpoint(path_or_name: str | os.PathLike[str], *, revision: str | None = None) -> Checkpoint:
    """Opens a checkpoint: reads its small files, maps its weights and checks their headers.

    Args:
        path_or_name: A Hugging Face directory, "demo", or a repository name to download ("org/name").
        revision: Branch, tag or commit of the repository; only for downloads.

    Raises:
        LoadError: Nothing is there, or it is no checkpoint.
        CorruptFile: A file contradicts its format, or two files contradict each other.
        UnsupportedFormat: The weights are in a format that is not read.
    """
    path = hub.resolve(path_or_name, revision)
    config = read_config(path)
    architecture = _architecture(path, config)
    tensors = _open_weights(path)
    nbytes = sum(tensor.nbytes for tensor in tensors.values())
    return Checkpoint(path, config, architecture, _generation_config(path, config), MappingProxyType(tensors), nbytes)


def read_config(path: Path) -> dict[str, Any]:
    """Reads ``config.json`` of a local directory.

    Raises:
        LoadError: The path is a file, or the directory has no config.json; the message says what is there instead.
        CorruptFile: config.json is not a JSON object.
    """
    if path.is_file():
        raise _file_instead(path)
    if not (path / "config.json").is_file():
        raise _no_config(path)
    return read_json(path / "config.json")


def check_vocabulary(vocab_size: int, embedding_rows: int, /, *, path: str | None = None) -> None:
    """Checks that every token id has a row in the embedding. Fewer tokens than rows (padding) is fine.

    Args:
        vocab_size: Ids of the tokenizer (``Tokenizer.vocab_size``).
        embedding_rows: Rows of the embedding matrix.
        path: The checkpoint, for the message.

    Raises:
        CorruptFile: The tokenizer can produce an id that the embedding does not have.
    """
    if vocab_size > embedding_rows:
        raise CorruptFile(
            f"[load] the tokenizer has {vocab_size} tokens but the embedding has {embedding_rows} rows.",
            path=path,
            hint="Tokenizer and weights do not belong together: copy both from the same checkpoint.",
        )


def _file_instead(path: Path) -> LoadError:
    hint = "Give the directory that holds config.json and the weights."
    if (path.parent / "config.json").is_file():
        hint = f"Give its directory instead: {path.parent}"
    kind = _FOREIGN.get(path.suffix)
    if kind:
        fact = f"[load] {path} is a {kind} file, which is not read."
        return UnsupportedFormat(fact, path=str(path), hint=_CONVERT if path.suffix != ".gguf" else hint)
    return LoadError(f"[load] {path} is a file, not a checkpoint directory.", path=str(path), hint=hint)


def _no_config(path: Path) -> LoadError:
    names = sorted(entry.name for entry in path.iterdir())
    fact = f"[load] {path} has no config.json"
    if not names:
        return LoadError(f"{fact}: the directory is empty.", path=str(path), hint="Was the download interrupted?")
    if "adapter_config.json" in names:
        hint = "Load the base model and give this directory in adapters={...}."
        return LoadError(f"{fact}: it holds an adapter, not a model.", path=str(path), hint=hint)
    inner = [name for name in names if (path / name / "config.json").is_file()]
    if not inner and (path / "snapshots").is_dir():
        inner = [f"snapshots/{entry.name}" for entry in sorted((path / "snapshots").iterdir()) if entry.is_dir()]
    if inner:
        return LoadError(f"{fact}.", path=str(path), hint=f"Did you mean {path / inner[0]}?")
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    return LoadError(f"{fact}, only {shown}.", path=str(path), hint="Give the directory of a Hugging Face checkpoint.")


def _architecture(path: Path, config: dict[str, Any]) -> str:
    names = config.get("architectures")
    if isinstance(names, list) and names and isinstance(names[0], str):
        return names[0]
    if isinstance(config.get("model_type"), str):
        return str(config["model_type"])
    fact = "has neither architectures nor model_type"
    hint = "Is this a language model's config?"
    raise CorruptFile(f"[load] {path / 'config.json'} {fact}.", path=str(path / "config.json"), hint=hint)


def _generation_config(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    nested = config.get("text_config")
    sources = [config, nested] if isinstance(nested, dict) else [config]
    file = path / "generation_config.json"
    result = read_json(file) if file.is_file() else {}
    wanted = _GENERATION_KEYS[:3] if result else _GENERATION_KEYS
    for key in wanted:
        for source in sources:
            if result.get(key) is None and source.get(key) is not None:
                result[key] = source[key]
    return result


def _open_weights(path: Path) -> dict[str, TensorSource]:
    if (path / "model.safetensors").is_file():
        return dict(open_safetensors(path / "model.safetensors").tensors)
    if (path / _INDEX).is_file():
        return _open_shards(path)
    files = sorted(entry.name for entry in path.glob("*.safetensors") if not _NOT_WEIGHTS.match(entry.name))
    shards = [match for match in map(_SHARD.fullmatch, files) if match]
    if shards:
        stem, count = shards[0][1], int(shards[0][3])
        return _join(path, [f"{stem}-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)])
    if len(files) == 1:
        return dict(open_safetensors(path / files[0]).tensors)
    if files:
        fact = f"has {len(files)} safetensors files ({', '.join(files[:4])}) but no {_INDEX}"
        raise LoadError(f"[load] {path} {fact}.", path=str(path), hint="Was the download interrupted?")
    foreign = sorted(entry.name for entry in path.iterdir() if entry.suffix in _FOREIGN)
    if foreign:
        fact = f"has no safetensors file, only {foreign[0]} ({_FOREIGN[Path(foreign[0]).suffix]})"
        raise UnsupportedFormat(f"[load] {path} {fact}.", path=str(path), hint=_CONVERT)
    hint = "Was the download interrupted?"
    raise LoadError(f"[load] {path} has a config.json but no weights (*.safetensors).", path=str(path), hint=hint)


def _join(path: Path, files: list[str]) -> dict[str, TensorSource]:
    """Opens all files; a name in two of them is an error."""
    missing = [name for name in files if not (path / name).is_file()]
    if missing:
        shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
        fact = f"{len(missing)} of {len(files)} weight files are missing: {shown}"
        hint = "Download the missing files."
        raise LoadError(f"[load] {path}: {fact}.", path=str(path / missing[0]), hint=hint)
    tensors: dict[str, TensorSource] = {}
    for name in files:
        for key, tensor in open_safetensors(path / name).tensors.items():
            if key in tensors:
                fact = f"{key!r} is both in {tensors[key].file} and in {tensor.file}"
                raise CorruptFile(f"[load] {fact}.", path=tensor.file, hint="Remove the file that is left over.")
            tensors[key] = tensor
    return tensors


def _open_shards(path: Path) -> dict[str, TensorSource]:
    index_path = path / _INDEX
    weight_map = read_json(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        fact = "has no weight_map from tensor names to files"
        raise CorruptFile(f"[load] {index_path} {fact}.", path=str(index_path), hint="Download it again.")
    for name, file in weight_map.items():
        if not isinstance(file, str) or not file or Path(file).name != file or file in ("..", "."):
            fact = f"puts {name!r} into {file!r}, which is no file name of this directory"
            raise CorruptFile(f"[load] {index_path} {fact}.", path=str(index_path), hint="Download it again.")
    tensors = _join(path, sorted(set(weight_map.values())))
    for name, file in weight_map.items():
        if name not in tensors or Path(tensors[name].file).name != file:
            where = f"it is in {tensors[name].file}" if name in tensors else "no file has it"
            raise MissingTensor(
                f"[load] {index_path} puts {name!r} into {file}, but {where}.",
                path=str(path / file),
                names=[name],
                hint="Index and shards do not belong together: download them again.",
            )
    return tensors
