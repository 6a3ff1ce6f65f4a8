"""Weight formats against PyTorch's float8 and against numpy's arithmetic; loading with `quant=`."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fastllm
from fastllm import Tensor, _core
from fastllm.errors import InvalidConfig

FORMATS = _core.weight_formats()


def weight(rows: int, depth: int, *, lean: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(rows * depth)
    found = rng.normal(lean, 0.05, (rows, depth)).astype(np.float32)
    found[3] = 0.0
    found[5] *= 1000.0
    return found


def rounded(w: np.ndarray, name: str) -> np.ndarray:
    return Tensor._wrap(_core.rounded_to(Tensor(w)._handle, name)).numpy()


def bfloat16(x: np.ndarray) -> np.ndarray:
    bits = x.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def groups(w: np.ndarray, size: int) -> list[np.ndarray]:
    return [w[:, at : at + size] for at in range(0, w.shape[1], size)]


def by_numpy(w: np.ndarray, name: str) -> np.ndarray:
    """The definition of `quant/format.h`, again."""
    kind, _, rest = name.partition("_")
    size = int(rest[rest.index("g") + 1 :]) if "g" in rest.replace("asym", "") else w.shape[1]
    if kind == "int4" and rest in ("", "asym"):
        size = 128
    parts = []
    for part in groups(w, size):
        low, high = part.min(1, keepdims=True), part.max(1, keepdims=True)
        most = np.maximum(-low, high)
        if kind == "int8":
            scale = most / np.float32(127)
            scale = scale if size == w.shape[1] and not rest else bfloat16(scale)
            code = np.clip(np.rint(part / np.where(scale, scale, 1)), -127, 127)
            parts.append(code * scale)
        elif kind == "fp8":
            torch = pytest.importorskip("torch")
            scale = most / np.float32(448)
            scale = scale if rest in ("", "dynamic") else bfloat16(scale)
            x = torch.from_numpy(np.clip(part / np.where(scale, scale, 1), -448, 448))
            parts.append(x.to(torch.float8_e4m3fn).float().numpy() * scale)
        elif "asym" in rest:
            low, high = np.minimum(low, 0), np.maximum(high, 0)
            scale = bfloat16((high - low) / np.float32(15))
            safe = np.where(scale, scale, 1)
            zero = np.clip(np.rint(-low / safe), 0, 15)
            parts.append((np.clip(np.rint(part / safe) + zero, 0, 15) - zero) * scale)
        else:
            scale = bfloat16(np.where(-low > high, low, high) / np.float32(-8))
            parts.append(np.clip(np.rint(part / np.where(scale, scale, 1)), -8, 7) * scale)
    return np.concatenate(parts, 1).astype(np.float32)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("depth", [40, 128, 300])
def test_formats_are_what_they_say(name: str, depth: int) -> None:
    w = weight(24, depth, lean=0.04 if "asym" in name else 0.0)
    np.testing.assert_array_equal(rounded(w, name), by_numpy(w, name))


@pytest.mark.parametrize("name", FORMATS)
def test_no_number_moves_further_than_promised(name: str) -> None:
    canonical, bound = _core.weight_format(name)
    assert canonical == name
    w = weight(64, 256, lean=0.04 if "asym" in name else 0.0)
    came = rounded(w, name)
    size = int(name.rsplit("_g", 1)[1]) if "_g" in name else 128 if name in ("int4", "int4_asym") else 256
    for before, after in zip(groups(w, size), groups(came, size), strict=True):
        most = np.abs(before).max(1, keepdims=True)
        if "asym" in name:
            most = np.maximum(before.max(1, keepdims=True), 0) - np.minimum(before.min(1, keepdims=True), 0)
        assert np.all(np.abs(before - after) <= bound * most + 1e-12)
    assert bound < {"fp8": 0.07, "int8": 0.009}.get(name.split("_")[0], 0.14)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sixteen_bit_weights_keep_their_dtype(dtype: str) -> None:
    t = Tensor(weight(8, 64)).astype(dtype)
    came = Tensor._wrap(_core.rounded_to(t._handle, "int8"))
    assert str(came.dtype) == dtype
    want = Tensor(by_numpy(t.numpy().astype(np.float32), "int8")).astype(dtype)
    np.testing.assert_array_equal(came.numpy(), want.numpy())


def test_what_is_not_finite_is_refused() -> None:
    w = weight(8, 64)
    w[2, 3] = np.nan
    with pytest.raises(fastllm.errors.InvalidRequest, match="row 2 of a weight holds a number that is not finite"):
        rounded(w, "int8")


@pytest.mark.parametrize("name", ["int3", "", "INT4", "int4_g16", 4])
def test_unknown_formats_are_refused_with_a_list(name: object) -> None:
    with pytest.raises(InvalidConfig, match=r"int4_asym_g32|weight format") as caught:
        fastllm.load("demo", device="cpu", quant=name)  # type: ignore[arg-type]
    assert "int4_asym_g32" in f"{caught.value} {caught.value.hint}"


def test_a_device_without_kernels_rounds_and_says_so_once() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with fastllm.load("demo", device="cpu", quant="int8", progress=False) as model:
            said = [str(w.message) for w in seen if "int8" in str(w.message)]
            assert len(said) == 1 and "cpu has no kernel for int8 weights" in said[0]
            assert model.info.quant == "int8"
            answer = str(model.blocking.generate("Why is the sky blue?", temperature=0, max_new_tokens=24).text)
    with fastllm.load("demo", device="cpu", progress=False) as model:
        assert str(model.blocking.generate("Why is the sky blue?", temperature=0, max_new_tokens=24).text) == answer


def test_formats_change_the_numbers_of_a_model_by_as_much_as_they_are_coarse() -> None:
    def logits(quant: str | None) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            with fastllm.load("demo", device="cpu", dtype="float32", quant=quant, progress=False) as model:
                return np.asarray(model.blocking.logits("The quick brown fox."))

    exact = logits(None)
    error = {name: np.linalg.norm(logits(name) - exact) / np.linalg.norm(exact) for name in ("int8", "fp8", "int4")}
    assert 0 < error["int8"] < error["fp8"] < error["int4"] < 0.5
