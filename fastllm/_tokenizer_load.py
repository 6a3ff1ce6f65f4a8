"""Finds a checkpoint's tokenizer files and builds the backend that fits them."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from fastllm._tokenizer_backends import AddedToken, Backend, HfBackend, SpmFrontEnd
from fastllm._tokenizer_spm import parse_model
from fastllm._tokenizer_tiktoken import QWEN, Family, build, family_of, is_ranks, parse_ranks
from fastllm.errors import CorruptFile, FastLLMError, LoadError, UnsupportedFormat
from fastllm.formats._files import read_bytes, read_json, read_text
from fastllm.tokenizer import Tokenizer

__all__ = ["load"]

_AGAIN = "The file is damaged or was cut short: download it again."
_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token")


def load(path: Path) -> Tokenizer:
    """Loads the tokenizer of a local file or directory; see ``Tokenizer.load``."""
    file = path if path.is_file() else _find(path)
    directory = file.parent
    config = _settings(directory)
    if file.name in ("vocab.json", "merges.txt"):
        return _load_hf(path, file, _from_merges(directory, config), config)
    if file.suffix == ".json":
        return _load_hf(path, file, _from_json(file), config)
    data = read_bytes(file, where="tokenizer")
    if is_ranks(data):
        return _load_ranks(path, file, data, config)
    if data[:4] == b"GGUF":
        fact = f"{file} is a GGUF file, whose vocabulary is not read"
        hint = "Give the directory of the Hugging Face checkpoint."
        raise UnsupportedFormat(f"[tokenizer] {fact}.", path=str(file), hint=hint)
    return _load_spm(path, file, data, config)


def _load_hf(path: Path, file: Path, tokenizer: Any, config: Mapping[str, Any]) -> Tokenizer:
    added = _added(file.parent, config, tokenizer.get_vocab(with_added_tokens=True))
    return _finish(_guarded(file, lambda: HfBackend(tokenizer, added, str(file))), path, config, {})


def _find(directory: Path) -> Path:
    """The file of a directory that holds the vocabulary, the most complete format first."""
    for name in ("tokenizer.json", "tokenizer.model", "tiktoken.model"):
        if (directory / name).is_file():
            return directory / name
    for pattern in ("*.tiktoken", "*.model"):
        found = sorted(directory.glob(pattern))
        if found:
            return found[0]
    if (directory / "vocab.json").is_file() and (directory / "merges.txt").is_file():
        return directory / "vocab.json"
    names = sorted(entry.name for entry in directory.iterdir())
    shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "nothing"
    hint = "A tokenizer is tokenizer.json, tokenizer.model, *.tiktoken, or vocab.json with merges.txt."
    raise LoadError(f"[tokenizer] {directory} has no tokenizer, only {shown}.", path=str(directory), hint=hint)


def _settings(directory: Path) -> dict[str, Any]:
    """tokenizer_config.json, with what only special_tokens_map.json has."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (directory / name).is_file():
            read = read_json(directory / name, where="tokenizer")
            settings |= {key: value for key, value in read.items() if value is not None or key not in settings}
    return settings


def _added(directory: Path, config: Mapping[str, Any], known: Container[str]) -> list[AddedToken]:
    """Tokens that the configuration adds to the vocabulary, from the newest place for them to the oldest.

    A named token (``pad_token`` ...) that neither they nor the vocabulary ``known`` have is left out: it would get an
    id beyond the embedding.
    """
    tokens: dict[str, AddedToken] = {}
    decoder = config.get("added_tokens_decoder")
    for key, entry in decoder.items() if isinstance(decoder, dict) else ():
        if isinstance(entry, dict) and isinstance(entry.get("content"), str) and str(key).isdigit():
            token = _token(entry, int(key))
            tokens[token.content] = token
    if (directory / "added_tokens.json").is_file():
        for content, index in read_json(directory / "added_tokens.json", where="tokenizer").items():
            if isinstance(index, int) and content not in tokens:
                tokens[content] = AddedToken(content, index)
    extra = config.get("additional_special_tokens") or config.get("extra_special_tokens") or ()
    extra = list(extra.values()) if isinstance(extra, dict) else extra if isinstance(extra, list) else []
    named = [config.get(name) for name in _NAMED]
    for entry in [*(entry for entry in named if _content(entry) in tokens or _content(entry) in known), *extra]:
        text = _content(entry)
        if text:
            old = tokens.get(text) or _token(entry if isinstance(entry, dict) else {"content": text}, None)
            flags = (old.lstrip, old.rstrip, old.normalized, old.single_word)
            tokens[text] = AddedToken(text, old.id, True, *flags)
    return list(tokens.values())


def _token(entry: Mapping[str, Any], index: int | None) -> AddedToken:
    flags = [bool(entry.get(name)) for name in ("special", "lstrip", "rstrip", "normalized", "single_word")]
    return AddedToken(str(entry["content"]), index, *flags)


def _content(entry: object) -> str | None:
    """The text of a token, which is a string or an object with ``content``."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) and entry else None


def _finish(backend: Backend, path: Path, config: Mapping[str, Any], defaults: Mapping[str, Any]) -> Tokenizer:
    """Makes the tokenizer. ``defaults`` hold for what the configuration leaves open."""
    directory = path if path.is_dir() else path.parent
    bos, eos, pad, unk = (_content(config.get(name)) or defaults.get(name) for name in _NAMED)
    ends: list[str | int] = [] if eos is None else [eos]
    for name in ("generation_config.json", "config.json"):
        if (directory / name).is_file():
            value = read_json(directory / name, where="tokenizer").get("eos_token_id")
            ends += [index for index in (value if isinstance(value, list) else [value]) if isinstance(index, int)]
    add_bos, add_eos = (config.get(name, defaults.get(name)) for name in ("add_bos_token", "add_eos_token"))
    return Tokenizer(backend, path=str(path), bos=bos, eos=ends, pad=pad, unk=unk, add_bos=add_bos, add_eos=add_eos)


def _failed(file: Path, error: BaseException) -> CorruptFile:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return CorruptFile(f"[tokenizer] {file} cannot be used: {reason}.", path=str(file), hint=_AGAIN)


def _guarded(file: Path, make: Any) -> Any:
    """Calls into ``tokenizers``; its failures, Rust panics included, become CorruptFile."""
    try:
        return make()
    except FastLLMError:
        raise
    except Exception as error:
        if file.suffix == ".json":
            read_json(file, where="tokenizer")  # names line and column where the file is no JSON at all
        raise _failed(file, error) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise _failed(file, error) from None


def _from_json(file: Path) -> Any:
    import tokenizers

    text = read_text(file, where="tokenizer")
    return _guarded(file, lambda: tokenizers.Tokenizer.from_str(text))


def _from_merges(directory: Path, config: Mapping[str, Any]) -> Any:
    """GPT-2's pair of files: byte-level BPE, split by GPT-2's pattern or Qwen's."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    for name in ("vocab.json", "merges.txt"):
        if not (directory / name).is_file():
            hint = "vocab.json and merges.txt belong together."
            raise LoadError(f"[tokenizer] {directory / name} is missing.", path=str(directory / name), hint=hint)
    vocab, merges = directory / "vocab.json", directory / "merges.txt"
    read_text(merges, where="tokenizer")
    model = _guarded(vocab, lambda: models.BPE.from_file(str(vocab), str(merges)))
    tokenizer = Tokenizer(model)
    prefix = bool(config.get("add_prefix_space"))
    if str(config.get("tokenizer_class", "")).startswith("Qwen"):
        tokenizer.normalizer = normalizers.NFC()
        split = pre_tokenizers.Split(Regex(QWEN), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _load_ranks(path: Path, file: Path, data: bytes, config: Mapping[str, Any]) -> Tokenizer:
    ranks = parse_ranks(data, str(file))
    family = family_of(ranks)
    pattern = next((config[key] for key in ("pat_str", "pattern") if isinstance(config.get(key), str)), family.pattern)
    tokenizer = _guarded(file, lambda: build(ranks, pattern))
    added = _added(file.parent, config, family.specials)
    if not any(token.id is not None for token in added):
        first = max(ranks.values()) + 1
        added += [AddedToken(name, first + index, special=True) for index, name in enumerate(family.specials)]
        known = {token.content: token for token in added if token.id is not None}
        added = [token for token in added if token.id is not None or token.content not in known]
    backend = _guarded(file, lambda: HfBackend(tokenizer, added, str(file)))
    return _finish(backend, path, config, _family_defaults(family))


def _family_defaults(family: Family) -> dict[str, Any]:
    return {"bos_token": family.bos, "eos_token": family.eos, "add_bos_token": family.bos is not None}


def _load_spm(path: Path, file: Path, data: bytes, config: Mapping[str, Any]) -> Tokenizer:
    model = parse_model(data, str(file))
    prefix = "always" if config.get("legacy") is True else "first"
    if config.get("add_prefix_space") is False:
        prefix = "never"
    ids = {"bos_token": model.bos_id, "eos_token": model.eos_id, "pad_token": model.pad_id, "unk_token": model.unk_id}
    defaults: dict[str, Any] = {
        name: model.pieces[index].text for name, index in ids.items() if 0 <= index < len(model.pieces)
    }
    defaults["add_bos_token"] = "bos_token" in defaults
    added = _added(file.parent, config, {piece.text for piece in model.pieces})
    front_end = SpmFrontEnd(model, added, str(file), prefix=prefix)
    return _finish(front_end, path, config, defaults)
