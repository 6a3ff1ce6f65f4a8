"""The pure renderers: exact text, well-formed and harmless HTML, numbers as numpy has them, sizes and times."""

from __future__ import annotations

import itertools
import math
import os
import re
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("fastllm._core", reason="the native module is not built")

from display_cases import completion, every_display, read, sanitised, token

from fastllm import Completion, Tensor, Token
from fastllm.display import color
from fastllm.display.escape import clip, esc, visible
from fastllm.display.heat import heat_map, reduce_plane
from fastllm.display.numbers import binary_size, count, duration, percent, short, text_bar
from fastllm.display.png import palette_png
from fastllm.display.quant import quant_error
from fastllm.display.style import DARK, LIGHT, stylesheet
from fastllm.display.tensor import channels_html, plane_of, tensor_html
from fastllm.display.tokens import (
    chunk_parts,
    completion_html,
    entropy_bits,
    level,
    rank_of,
    static_html,
    tip_text,
    usage_line,
)
from fastllm.errors import InvalidRequest, ShapeError

GOLDEN = Path(__file__).with_name("golden")
NASTY = "</script><script>alert('x')</script> & \"q\" <!-- \u202e \u2066 ]]> \x00\x07 --> <img src=x onerror=1>"
DISPLAYS = sorted(every_display())


# --- all of them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DISPLAYS)
def test_well_formed_scriptless_and_without_network(name: str) -> None:
    html = every_display()[name]()
    page = read(html)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base", "meta", "form"}
    for tag, attribute, value in page.attributes:
        assert not attribute.startswith("on"), f"{tag} has {attribute}"
        if attribute in ("src", "href"):
            assert value is not None
            assert value.startswith("data:image/png;base64,")
    assert "@import" not in html
    assert "url(" not in html
    assert html.count("<style>") == 1
    assert len(html.encode()) < 100_000


@pytest.mark.parametrize("name", DISPLAYS)
def test_text_is_escaped_everywhere(name: str) -> None:
    page = read(every_display(NASTY)[name]())
    assert not page.tags & {"script"}
    assert ("img", "onerror", "1") not in page.attributes
    assert "\x00" not in page.text
    assert "\x07" not in page.text


@pytest.mark.parametrize("name", ["completion", "batch", "chat", "attention", "lens"])
@given(text=st.text(max_size=60))
@settings(max_examples=25, deadline=None)
def test_any_text_leaves_the_page_whole(name: str, text: str) -> None:
    before = read(every_display("x")[name]()).tags
    page = read(every_display(text)[name]())
    assert page.tags <= before | {"br"}


@pytest.mark.parametrize("name", DISPLAYS)
def test_pictures_have_words(name: str) -> None:
    html = every_display()[name]()
    for opening in re.findall(r"<(?:img|svg)\b[^>]*>", html):
        said = re.search(r'(?:alt|aria-label)="([^"]+)"', opening)
        assert said or 'aria-hidden="true"' in opening, opening
    for image in re.findall(r"<svg\b(?![^>]*aria-hidden)[^>]*>", html):
        assert 'role="img"' in image


@pytest.mark.parametrize(("name", "facts"), [
    ("completion", ["sky is blue", "4 tok", "58.3 tok/s", "TTFT 84 ms", "prompt 7 (4 cached)", "other 22.3 %"]),
    ("tensor", ["float32", "9 × 12", "432 B", "min", "max", "median", "NaN"]),
    ("batch", ["stop", "failed", "InvalidRequest: sky", "3", "2 of 3 done"]),
    ("attention", ["sky", "blue"]),
    ("lens", ["rank 2", "50 %", "l0"]),
    ("monitor", ["12.5 tok/s", "queued", "25 blocks"]),
    ("sampling", ["entropy", "dropped", "top_p 0.9"]),
    ("chat", ["sky yes", "cancelled", "1 of 2"]),
    ("memory", ["weights", "2.0 KiB", "KV in use"]),
])  # fmt: skip
def test_facts_survive_a_sanitiser(name: str, facts: list[str]) -> None:
    html = every_display()[name]()
    text = read(sanitised(html)).text + " ".join(re.findall(r'aria-label="([^"]*)"', html))
    for fact in facts:
        assert fact in text, f"{fact!r} is only in the looks of {name}"
    assert "logprob -" not in read(sanitised(html)).text  # tips do not run into the text


@pytest.mark.parametrize("name", ["completion", "batch", "chat", "monitor"])
def test_golden(name: str) -> None:
    html = re.sub(r"<style>.*?</style>", "", every_display()[name](), flags=re.DOTALL)
    path = GOLDEN / f"{name}.html"
    if os.environ.get("FASTLLM_GOLDEN") == "write":
        path.write_text(html.replace("><", ">\n<") + "\n", encoding="utf-8")
    assert html.replace("><", ">\n<") + "\n" == path.read_text(encoding="utf-8")


# --- escaping and numbers -----------------------------------------------------------------------------------------


@given(st.text())
def test_escape_agrees_with_a_parser(text: str) -> None:
    page = read(f"<p>{esc(text)}</p>")
    kept = "".join(c for c in text if c >= " " and not 0x7F <= ord(c) < 0xA0 and not 0xD800 <= ord(c) < 0xE000)
    shown = "".join(c for c in page.text if not 0x2400 <= ord(c) <= 0x2421 and c not in "\ufffd\n\t")
    kept = "".join(c for c in kept if not 0x2400 <= ord(c) <= 0x2421 and c not in "\ufffd\ufffe\uffff")
    assert shown == kept
    assert page.tags == {"p"}
    html_attribute = read(f'<p title="{esc(text)}"></p>').attributes
    assert len(html_attribute) == 1


def test_a_megabyte_in_one_token() -> None:
    done = completion(["x" * 1_000_000, " <b>"])
    start = time.process_time()
    html = completion_html(done)
    assert time.process_time() - start < 1.0
    assert len(html.encode()) <= 100_000
    assert "The text ends after 0 of 2 tokens" in read(html).text


def test_numbers() -> None:
    assert [short(v) for v in (0, 1.0, 0.000123, 1234567.0, math.nan, -math.inf)] == [
        "0", "1", "0.000123", "1.23e+06", "NaN", "-Inf",
    ]  # fmt: skip
    assert [percent(v) for v in (0, 0.4213, 1.0, 0.00001)] == ["0.0 %", "42.1 %", "100.0 %", "<0.1 %"]
    assert [binary_size(v) for v in (12, 1024, 1536, 300 * 1024, 5 << 40)] == [
        "12 B", "1 KiB", "1.5 KiB", "300 KiB", "5 TiB",
    ]  # fmt: skip
    assert [duration(v) for v in (0.0012, 0.084, 3.21, 90)] == ["1.2 ms", "84 ms", "3.2 s", "1 min 30 s"]
    assert count(1543714304) == "1.54 B"
    assert text_bar(0.5, 4) == "██  "
    assert [len(text_bar(share, 12)) for share in np.linspace(-1, 2, 50)] == [12] * 50
    assert clip("abc", 2) == "a…"
    assert visible(" a b\n ") == "␣a b↵␣"
    assert visible("  ") == "␣␣"


# --- tokens -------------------------------------------------------------------------------------------------------


def test_tip_text_is_exact() -> None:
    assert tip_text(token(0, " blue"), 0.0213).splitlines() == [
        "' blue'  id 10  p 60.7 %  logprob -0.500  rank 1  bytes 20 62 6c 75 65  +21 ms",
        "▸ 60.7 % ███████▎     ␣blue",
        "  22.3 % ██▋          ␣other",
        "   5.0 % ▋            ↵",
    ]
    assert tip_text(Token(3, "", b"\xf0", 0)) == "'\ufffd'  id 3  bytes f0"


def test_usage_line_is_exact() -> None:
    line = usage_line(
        tokens=142, tps=58.34, ttft_s=0.084, prompt_tokens=12, cached_tokens=8, kv_use=0.004, seed=7, state="running"
    )
    assert line == "142 tok · 58.3 tok/s · TTFT 84 ms · prompt 12 (8 cached) · KV 0.4 % · seed 7 · running"


def test_shades_follow_their_numbers() -> None:
    probable = [level(token(0, "x", math.log(p)), "probability") for p in (1.0, 0.91, 0.55, 0.05, 1e-9)]
    assert probable == [0, 0, 4, 9, 9]
    assert rank_of(token(0, "x")) == 1
    assert rank_of(Token(99, "x", b"x", 0, top=token(0, "x").top)) == 0
    bits = entropy_bits(token(0, "x", -0.5))
    shares = np.exp([-0.5, -1.5, -3.0])
    shares = np.append(shares, 1 - shares.sum())
    assert bits == pytest.approx(-(shares * np.log2(shares)).sum())
    assert level(Token(1, "a", b"a", -3), "cached", cached=1, prompt_tokens=3) == 5
    assert level(Token(1, "a", b"a", -2), "cached", cached=1, prompt_tokens=3) == 0
    with pytest.raises(InvalidRequest, match="rainbow"):
        completion_html(completion(["a"]), shade="rainbow")  # type: ignore[arg-type]


def test_every_number_of_a_tip_is_in_the_table_too() -> None:
    done = completion([" one", " two", " three"])
    table = re.sub(r"<[^>]+>", " ", completion_html(done).split("Tokens as a table")[1])
    for entry in done.tokens:
        assert str(entry.id) in table
        assert entry.bytes.hex(" ") in table
        assert percent(math.exp(entry.logprob or 0)) in table
        for other in entry.top:
            assert percent(math.exp(other.logprob)) in table


def test_special_tokens_are_chips_and_incomplete_characters_show_nothing() -> None:
    tokens = [Token(2, "", b"", 0, special=True), Token(5, "", b"\xe4", 1), Token(6, "ü", b"\xc3", 2)]
    parts = chunk_parts(tokens, tips=False, special_name=lambda i: f"<eos {i}>")
    assert parts == ['<span class="flm1-sp">&lt;eos 2&gt;</span>', "", "ü"]


def test_keyboard_reaches_each_token_of_one_group() -> None:
    page = read(completion_html(completion([" a", " b", " c"])))
    names = [value for tag, name, value in page.attributes if (tag, name) == ("input", "name")]
    labels = [value for tag, name, value in page.attributes if (tag, name) == ("input", "aria-label")]
    assert len(names) == 3
    assert len(set(names)) == 1
    assert labels[0] == "␣a, 100.0 %, rank 1"
    assert "focus-within:after" in stylesheet()


@pytest.mark.parametrize("size", [0, 1, 60, 500, 3000])
def test_static_copies_stay_small_and_say_what_is_cut(size: int) -> None:
    done = completion([f" word{i}" for i in range(size)])
    html = completion_html(done)
    assert len(html.encode()) <= 100_000
    page = read(html)
    assert "".join(f" word{i}" for i in range(min(size, 60))) in page.text
    if size >= 500:
        assert re.search(r"Alternatives are shown for the first \d+ of", page.text)
        assert re.search(r"The table ends after \d+ of", page.text)


def test_without_log_probabilities_there_is_no_shade_and_no_legend() -> None:
    done = Completion("ab", (Token(1, "a", b"a", 0), Token(2, "b", b"b", 1)), "length")
    page = read(completion_html(done))
    assert "model's probability" not in page.text
    assert not any(re.search(r"\bs\d\b", value or "") for _, name, value in page.attributes if name == "class")


def test_an_error_is_announced() -> None:
    html = static_html([token(0, "a")], usage="1 tok", error="EngineDead: [step] fault <1>")
    assert '<div class="flm1-bad" role="alert"><p>EngineDead: [step] fault &lt;1&gt;</p></div>' in html


# --- colours and pictures -----------------------------------------------------------------------------------------


def lightness(rgb: np.ndarray) -> np.ndarray:
    """CIE L*, by the textbook and not by the code under test."""
    linear = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    y = linear @ np.array([0.2126, 0.7152, 0.0722])
    return 116 * np.where(y > 216 / 24389, np.cbrt(y), (24389 / 27 * y + 16) / 116) - 16


# Machado, Oliveira, Fernandes 2009, severity 1.0, on linear RGB
BLINDNESS = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def test_sequential_colours_rise_for_every_eye() -> None:
    table = color.table("sequential").astype(float)
    steps = np.diff(lightness(table)[::8])
    assert (steps > 0).all()
    for matrix in BLINDNESS.values():
        linear = np.where(table / 255 <= 0.04045, table / 255 / 12.92, ((table / 255 + 0.055) / 1.055) ** 2.4)
        seen = np.clip(linear @ np.array(matrix).T, 0, 1)
        luma = seen @ np.array([0.2126, 0.7152, 0.0722])
        assert (np.diff(luma[::8]) > 0).all()


def test_diverging_colours_are_as_light_on_either_side() -> None:
    light = lightness(color.table("diverging").astype(float))
    assert np.abs(light - light[::-1]).max() < 6
    assert light[127:129].min() > 93
    assert light[[0, -1]].max() < 60


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_every_shade(dark: bool) -> None:
    theme = DARK if dark else LIGHT
    for shade in color.shades(dark=dark)[1:]:
        assert color.contrast(theme["fg"], shade) >= 4.5
    for name in ("fg", "dim", "acc", "bad"):
        for ground in ("bg", "up"):
            assert color.contrast(theme[name], theme[ground]) >= 4.5, (name, ground)
    light = [lightness(np.array([list(bytes.fromhex(shade[1:]))], float))[0] for shade in color.shades(dark=dark)]
    assert all(abs(a - b) > 0.8 for a, b in itertools.pairwise(light)), "each step differs by lightness"


def test_png_by_a_reader_of_its_own() -> None:
    random = np.random.default_rng(1)
    pixels = random.integers(0, 7, (5, 9)).astype(np.uint8)
    palette = random.integers(0, 256, (7, 3)).astype(np.uint8)
    data = palette_png(pixels, palette)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        size = struct.unpack(">I", data[at : at + 4])[0]
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size])[0] == zlib.crc32(kind + body)
        chunks[kind] = body
        at += 12 + size
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (9, 5, 8, 3, 0, 0, 0)
    assert chunks[b"PLTE"] == palette.tobytes()
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(5, 10)
    assert (rows[:, 0] == 0).all()
    np.testing.assert_array_equal(rows[:, 1:], pixels)


@pytest.mark.parametrize("shape", [(3, 3), (128, 128), (129, 5), (300, 257), (1, 1000)])
def test_reduction_keeps_the_outliers(shape: tuple[int, int]) -> None:
    plane = np.random.default_rng(2).standard_normal(shape)
    small, rows, columns = reduce_plane(plane, 128)
    assert max(small.shape) <= 128
    for i in range(small.shape[0]):
        for j in range(small.shape[1]):
            block = plane[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns].ravel()
            assert small[i, j] == block[np.abs(block).argmax()]


def test_odd_values_are_marked_and_counted() -> None:
    plane = np.zeros((12, 12))
    plane[0, 0], plane[1, 1], plane[2, 2], plane[3, 3], plane[4, 4] = np.nan, np.inf, -np.inf, 9.0, -9.0
    heat = heat_map(plane, range_=(-1.0, 1.0), least_px=192)
    assert (heat.nan, heat.inf, heat.clipped, heat.cell) == (1, 2, 2, 16)
    assert len(np.unique(heat.pixels[:16, :16])) == 2  # a cross on its ground
    up, down = heat.pixels[16:32, 16:32], heat.pixels[32:48, 32:48]
    assert (up != down).any()
    assert (heat.pixels[48:64, 48:64] == 63).any()
    text = read(tensor_html(Tensor(plane.astype(np.float32)))).text
    assert "1 NaN (×)" in text
    assert "2 infinite (▲ ▼)" in text
    with pytest.raises(InvalidRequest, match="rainbow"):
        heat_map(plane, scale="rainbow")


def test_colour_follows_the_value() -> None:
    plane = np.linspace(-1, 1, 64).reshape(1, 64)
    heat = heat_map(plane, range_="minmax", least_px=1)
    np.testing.assert_array_equal(heat.pixels[0], np.arange(64))
    log = heat_map(np.array([[1.0, 10.0, 100.0, 0.0]]), scale="log", range_="minmax", least_px=1)
    assert (log.low, log.high) == (0.0, 2.0)
    assert log.pixels[0].tolist() == [0, 32, 63, 0]


# --- tensors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int8", "int64", "bool"])
@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 4), (2, 3, 4), (0, 3), (2, 1, 3, 5)])
def test_every_tensor_has_a_display(shape: tuple[int, ...], dtype: str) -> None:
    tensor = Tensor(np.arange(int(np.prod(shape)), dtype=np.float32).reshape(shape)).astype(dtype)
    page = read(tensor_html(tensor))
    assert dtype in page.text
    assert repr(tensor) in page.text


def test_figures_are_numpys() -> None:
    array = np.random.default_rng(3).standard_normal((40, 50)).astype(np.float32)
    array[0, :5] = 0
    text = read(tensor_html(Tensor(array))).text
    p1, median, p99 = np.percentile(array.astype(np.float64), (1, 50, 99))
    for value in (array.min(), array.max(), array.mean(dtype=float), array.std(dtype=float), p1, median, p99):
        assert short(float(value)) in text
    assert percent(5 / 2000) in text
    assert "of all 2000 values" in text


def test_planes_of_any_axes() -> None:
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    tensor = Tensor(array)
    np.testing.assert_array_equal(plane_of(tensor).values, array[0, 0])
    np.testing.assert_array_equal(plane_of(tensor, axes=(1, 3), at={0: 1, 2: 2}).values, array[1, :, 2, :])
    np.testing.assert_array_equal(plane_of(tensor, axes=(3, 0), at={1: 1, 2: 0}).values, array[:, 1, 0, :].T)
    sampled = plane_of(Tensor(np.arange(100 * 10).reshape(100, 10)), most=300)
    assert sampled.row_step == 4
    np.testing.assert_array_equal(sampled.values[:, 0], np.arange(0, 1000, 40))


def test_outlier_channels_come_first() -> None:
    array = np.random.default_rng(4).standard_normal((30, 64)).astype(np.float32)
    array[17] *= 40
    html = channels_html(plane_of(Tensor(array)))
    order = [int(index) for index in re.findall(r">row (\d+)<", html)]
    assert order == np.argsort(-np.abs(array).max(axis=1))[:12].tolist()


def test_budgets_of_a_large_tensor() -> None:
    array = np.random.default_rng(5).standard_normal((4096, 4096)).astype(np.float32)
    for tensor in (Tensor.from_numpy(array), Tensor.from_numpy(array[:2048, :2048]).astype("bfloat16")):
        tensor_html(tensor)
        spent = []
        for _ in range(5):
            start = time.process_time()
            html = tensor_html(tensor)
            spent.append(time.process_time() - start)
        assert min(spent) < 0.05, f"{min(spent) * 1e3:.0f} ms of processor time"
        assert len(html.encode()) <= 40_000
        assert "sampled values" in html


def test_quantisation_errors_are_exact() -> None:
    random = np.random.default_rng(6)
    truth = random.standard_normal((16, 32))
    came = truth + random.standard_normal((16, 32)) * 0.01
    error = quant_error(truth, came)
    wrong = came - truth
    assert error.max_abs == np.abs(wrong).max()
    assert error.mean_abs == pytest.approx(np.abs(wrong).mean())
    assert error.relative == pytest.approx(np.linalg.norm(wrong) / np.linalg.norm(truth))
    assert error.cosine == pytest.approx(np.vdot(truth, came) / np.linalg.norm(truth) / np.linalg.norm(came))
    assert error.sqnr_db == pytest.approx(20 * np.log10(np.linalg.norm(truth) / np.linalg.norm(wrong)))
    rows = np.linalg.norm(wrong, axis=1) / np.linalg.norm(truth, axis=1)
    assert [row for row, _ in error.worst_rows] == np.argsort(-rows)[:5].tolist()
    same = quant_error(truth, truth)
    assert (same.max_abs, same.sqnr_db) == (0.0, math.inf)
    with pytest.raises(ShapeError, match=r"\[16, 32\]"):
        quant_error(truth, came[:3])
    holed, other = truth.copy(), came.copy()
    holed[3, 4], other[5, 6] = np.nan, np.inf
    error = quant_error(holed, other)
    kept = np.delete(wrong.ravel(), [3 * 32 + 4, 5 * 32 + 6])
    assert error.not_finite == 2
    assert error.max_abs == np.abs(kept).max()
    assert error.mean_abs == pytest.approx(np.abs(kept).mean())
