"""Graphs and programs: a recorded llama gives numpy's logits under every choice of passes; hostile graphs raise."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from core_reference import Llama

from fastllm import _core as core
from fastllm import errors

PASSES = [
    "affine_fold",
    "dead_code",
    "select_rows",
    "concat_linear",
    "gated_activation",
    "linear_activation",
    "linear_residual",
    "residual_norm",
]
CHOICES: list[Any] = [None, [], *[[name] for name in PASSES], PASSES[::-1], ["residual_norm", "linear_residual"]]


@pytest.fixture(scope="module")
def device() -> Any:
    return core.Device("cpu", 2)


def tensor(array: np.ndarray[Any, Any]) -> Any:
    return core.Tensor.from_numpy(np.ascontiguousarray(array), copy=True)


def spread(x: np.ndarray[Any, Any]) -> float:
    return float(x.max() - x.min())


def step_for(program: Any, device: Any, capacity: int = 64) -> Any:
    return core.EagerStep(device, program.kv_layers, capacity)


@pytest.mark.parametrize("passes", CHOICES, ids=lambda p: "default" if p is None else "+".join(p) or "none")
@pytest.mark.parametrize(
    "shape", [{}, {"bias": True, "post_norm": True, "kv_heads": 1}, {"tokens_out": False, "layers": 1}]
)
def test_llama_equals_numpy(device: Any, passes: list[str] | None, shape: dict[str, Any]) -> None:
    rng = np.random.default_rng(7)
    model = Llama(rng, **shape)
    program = core.Program(model.record(core), device, context_length=64, passes=passes)
    ids = rng.integers(0, model.vocab, 19).tolist()
    want = model.logits(ids)
    step = step_for(program, device)
    step.begin(ids)
    got = program.logits(step)
    assert got.shape == want.shape
    assert np.abs(got - want).max() < 1e-5 * spread(want)


@pytest.mark.parametrize("passes", [None, []])
def test_chunks_and_single_tokens_equal_prefill(device: Any, passes: list[str] | None) -> None:
    rng = np.random.default_rng(11)
    model = Llama(rng)
    program = core.Program(model.record(core), device, context_length=64, passes=passes)
    ids = rng.integers(0, model.vocab, 40).tolist()
    whole = step_for(program, device)
    whole.begin(ids)
    want = program.logits(whole)
    for sizes in ([1] * 40, [7, 1, 16, 3, 13]):
        step = step_for(program, device)
        rows: list[np.ndarray[Any, Any]] = []
        done = 0
        for size in sizes:
            step.begin(ids[done : done + size])
            rows.append(program.logits(step))
            done += size
        assert step.length == 40
        np.testing.assert_array_equal(np.concatenate(rows), want)  # on the CPU: bit for bit


def test_selected_rows_are_those_rows(device: Any) -> None:
    rng = np.random.default_rng(3)
    model = Llama(rng)
    program = core.Program(model.record(core), device, context_length=64)
    ids = rng.integers(0, model.vocab, 12).tolist()
    step = step_for(program, device)
    step.begin(ids)
    everything = program.logits(step)
    np.testing.assert_array_equal(program.logits(step, [2, 5, 11]), everything[[2, 5, 11]])
    assert program.logits(step, []).shape == (0, model.vocab)
    for bad in ([12], [-1], [3, 2]):
        with pytest.raises(errors.InvalidRequest, match="row"):
            program.logits(step, bad)


def test_default_passes_leave_the_fused_nodes(device: Any) -> None:
    model = Llama(np.random.default_rng(1), layers=2)
    graph = model.record(core)
    plain = core.Program(graph, device, context_length=64, passes=[]).dump()
    fused = core.Program(graph, device, context_length=64).dump()

    def count(text: str, op: str) -> int:
        return len(re.findall(rf"= {op}\(", text))

    assert (count(plain, "linear"), count(plain, "unary"), count(plain, "binary")) == (15, 2, 6)
    # A layer: QKV, o + residual, gate/up, down + residual; then lm_head.
    assert (count(fused, "linear"), count(fused, "unary"), count(fused, "binary")) == (9, 0, 0)
    assert count(fused, "gated_activation") == 2
    assert len(re.findall("add_residual=true", fused)) == 4
    # The rows are picked right after the last attention and from the residual beside it; nothing later is as tall.
    assert count(fused, "select_rows") == 2
    last_attention = fused.index("# layers.1.attn")
    for line in fused[last_attention:].splitlines()[1:]:
        if " = " in line and "select_rows(" not in line and "reshape(" not in line:
            assert "[rows" in line.split(" = ")[0], line


def test_dump_reads_like_the_stub_says(device: Any) -> None:
    text = Llama(np.random.default_rng(1), layers=1).record(core).dump()
    assert re.search(r"%\d+ \[tokens, 24\] f32 = rms_norm\(%\d+, norm\) eps=1e-05  # norm", text)
    assert re.search(r"^kv_write\(%\d+, %\d+\) layer=0  # layers.0.kv$", text, re.MULTILINE)


def test_memory_is_shared_and_grows_with_the_step(device: Any) -> None:
    model = Llama(np.random.default_rng(1), layers=3)
    program = core.Program(model.record(core), device, context_length=64)
    step = step_for(program, device)
    step.begin([1, 2, 3])
    program.logits(step)
    found = re.search(r"arena (\d+) bytes, \d+ buffers of (\d+) bytes together", program.dump())
    assert found
    assert int(found[1]) < int(found[2])


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 1e-5), ("float16", 1e-5)])
def test_half_weights_equal_their_float32_values(device: Any, dtype: str, tolerance: float) -> None:
    rng = np.random.default_rng(5)
    model = Llama(rng)
    halves = {n: core.run_op(device, "copy", [tensor(w)], {"dtype": dtype})[0] for n, w in model.weights.items()}
    for name, half in halves.items():
        model.weights[name] = core.run_op(device, "copy", [half], {"dtype": "float32"})[0].numpy().copy()
    program = core.Program(model.record(core, halves), device, context_length=64, kv_dtype="float32")
    assert program.weight_bytes < 0.6 * sum(w.nbytes for w in model.weights.values())
    ids = rng.integers(0, model.vocab, 17).tolist()
    step = step_for(program, device)
    step.begin(ids)
    want = model.logits(ids)
    assert np.abs(program.logits(step) - want).max() < tolerance * spread(want)
    auto = core.Program(model.record(core, halves), device, context_length=64)
    assert auto.kv_layers[0]["dtype"] == dtype
    assert auto.kv_bytes_per_token == program.kv_bytes_per_token // 2
    step = step_for(auto, device)
    step.begin(ids)
    assert np.abs(auto.logits(step) - want).max() < 2e-2 * spread(want)


def test_program_keeps_its_weights_and_graph_alive(device: Any) -> None:
    model = Llama(np.random.default_rng(5), layers=1)
    want = model.logits([3, 1, 4])
    graph = model.record(core, {n: tensor(w) for n, w in model.weights.items()})
    model.weights.clear()
    program = core.Program(graph, device, context_length=8)
    del graph, model
    junk = [np.full(5000, np.nan, np.float32) for _ in range(50)]
    step = step_for(program, device, 8)
    step.begin([3, 1, 4])
    assert np.abs(program.logits(step) - want).max() < 1e-5 * spread(want)
    del junk


def test_tied_weights_are_one_value(device: Any) -> None:
    table = tensor(np.random.default_rng(0).standard_normal((16, 8)).astype(np.float32))
    g = core.Graph()
    first = g.constant("table", table)
    x = g.op("embedding", [g.token_ids(), first], {}, "embed")[0]
    g.set_output(g.op("linear", [x, g.constant("table", table)], {}, "head")[0])
    program = core.Program(g, device, context_length=8)
    assert program.weight_bytes == 16 * 8 * 4
    assert program.vocab_size == 16
    with pytest.raises(errors.InvalidRequest, match="already another tensor"):
        g.constant("table", tensor(np.zeros((16, 8), np.float32)))


def test_constants_are_folded_and_strided_ones_packed(device: Any) -> None:
    rng = np.random.default_rng(0)
    table, weight = rng.standard_normal((9, 6)).astype(np.float32), rng.standard_normal((6, 9)).astype(np.float32)
    g = core.Graph()
    half = g.op("affine", [g.constant("w", core.Tensor.from_numpy(weight.T, copy=False))], {"scale": 0.5}, "half")[0]
    x = g.op("embedding", [g.token_ids(), g.constant("table", tensor(table))], {"scale": 2.0}, "embed")[0]
    x = g.op(
        "matmul", [x, g.op("affine", [g.constant("b", tensor(weight[:, :6]))], {"shift": 1.0}, "b1")[0]], {}, "mm"
    )[0]
    with pytest.raises(errors.InvalidRequest, match="computed value"):
        g.op("linear", [x, half], {}, "head")
    out = g.op("linear", [x, g.constant("w", core.Tensor.from_numpy(weight.T, copy=False))], {}, "head")[0]
    g.set_output(out)
    program = core.Program(g, device, context_length=8)
    assert "affine(" not in program.dump()
    step = step_for(program, device, 8)
    step.begin([0, 8, 3])
    want = (table[[0, 8, 3]] * 2.0) @ (weight[:, :6] + 1.0) @ weight
    np.testing.assert_allclose(program.logits(step), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("passes", [None, []])
def test_reshape_of_a_slice_of_heads_is_copied(device: Any, passes: list[str] | None) -> None:
    rng = np.random.default_rng(0)
    table, weight = rng.standard_normal((9, 12)).astype(np.float32), rng.standard_normal((9, 6)).astype(np.float32)
    g = core.Graph()
    x = g.op("embedding", [g.token_ids(), g.constant("table", tensor(table))], {}, "embed")[0]
    x = g.reshape(g.slice(g.reshape(x, [-1, 3, 4]), 1, 3), [-1, 6])
    g.set_output(g.op("linear", [x, g.constant("w", tensor(weight))], {}, "head")[0])
    program = core.Program(g, device, context_length=8, passes=passes)
    step = step_for(program, device, 8)
    step.begin([1, 2, 8])
    want = table[[1, 2, 8]].reshape(-1, 3, 4)[..., 1:3].reshape(-1, 6) @ weight.T
    np.testing.assert_allclose(program.logits(step), want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("passes", [None, []])
def test_values_read_again_later_survive_in_place_ops(device: Any, passes: list[str] | None) -> None:
    """x is read by five ops that could each overwrite it, and by a last one that needs it whole."""
    rng = np.random.default_rng(0)
    table, weight = rng.standard_normal((9, 6)).astype(np.float32), rng.standard_normal((9, 6)).astype(np.float32)
    one = np.ones(6, np.float32)
    g = core.Graph()
    x = g.op("embedding", [g.token_ids(), g.constant("table", tensor(table))], {}, "embed")[0]
    left = g.slice(x, 0, 3)
    a = g.op("unary", [x], {"kind": "silu"}, "a")[0]
    b = g.op("rms_norm", [x, g.constant("one", tensor(one))], {"eps": 1e-6}, "b")[0]
    c = g.op("affine", [x], {"scale": 2.0, "shift": 1.0}, "c")[0]
    d = g.op("binary", [x, x], {"kind": "mul"}, "d")[0]
    e = g.op("unary", [left], {"kind": "neg"}, "e")[0]
    f = g.op("unary", [left], {"kind": "exp"}, "f")[0]
    ab = g.op("binary", [a, b], {"kind": "add"}, "ab")[0]
    cd = g.op("binary", [c, d], {"kind": "add"}, "cd")[0]
    total = g.op("binary", [ab, cd], {"kind": "add"}, "abcd")[0]
    total = g.op("binary", [total, x], {"kind": "sub"}, "minus_x")[0]
    gated = g.op("gated_activation", [e, f], {"activation": "tanh"}, "gated")[0]
    out = g.op("linear", [total, g.constant("w", tensor(weight))], {}, "head")[0]
    more = g.op("linear", [gated, g.constant("w3", tensor(weight[:, :3]))], {}, "head3")[0]
    g.set_output(g.op("binary", [out, more], {"kind": "add"}, "sum")[0])
    program = core.Program(g, device, context_length=8, passes=passes)
    step = step_for(program, device, 8)
    step.begin([1, 2, 8])
    t = table[[1, 2, 8]].astype(np.float64)
    want = t / (1 + np.exp(-t)) + t / np.sqrt((t * t).mean(-1, keepdims=True) + 1e-6) + 2 * t + 1 + t * t - t
    want = want @ weight.T + (np.tanh(-t[:, :3]) * np.exp(t[:, :3])) @ weight[:, :3].T
    np.testing.assert_allclose(program.logits(step), want, rtol=2e-5, atol=2e-5)
    np.testing.assert_array_equal(program.logits(step), program.logits(step))


# --- graphs that must not compile ------------------------------------------------------------------------------------


def embed(g: Any, rows: int = 9, width: int = 6) -> Any:
    return g.op(
        "embedding",
        [g.token_ids(), g.constant(f"t{rows}x{width}", tensor(np.ones((rows, width), np.float32)))],
        {},
        "embed",
    )[0]


def test_no_output_raises(device: Any) -> None:
    g = core.Graph()
    embed(g)
    with pytest.raises(errors.InvalidRequest, match="no output"):
        core.Program(g, device, context_length=8)


def test_value_of_another_graph_raises() -> None:
    g, other = core.Graph(), core.Graph()
    x = embed(other)
    with pytest.raises(errors.InvalidRequest, match="another graph"):
        g.op("unary", [x], {"kind": "silu"}, "act")
    with pytest.raises(errors.InvalidRequest, match="another graph"):
        g.set_output(x)


def test_wrong_leads_raise(device: Any) -> None:
    g = core.Graph()
    x = embed(g)
    fixed = g.constant("c", tensor(np.ones((9, 6), np.float32)))
    with pytest.raises(errors.ShapeError):
        g.set_output(fixed)
    with pytest.raises(errors.ShapeError, match="broadcast"):
        g.op("binary", [x, fixed], {"kind": "add"}, "add")
    rows = g.op("select_rows", [x], {}, "rows")[0]
    assert rows.shape == ("rows", 6)
    with pytest.raises(errors.ShapeError, match="broadcast"):
        g.op("binary", [x, rows], {"kind": "add"}, "add")
    with pytest.raises(errors.ShapeError):
        g.op("select_rows", [rows], {}, "again")
    with pytest.raises(errors.ShapeError):
        g.op("attention", [g.reshape(rows, [-1, 2, 3])], {"layer": 0}, "attn")


def test_shape_errors_name_both_sides_and_the_node() -> None:
    g = core.Graph()
    x = embed(g, 9, 2048 // 64)
    weight = g.constant("w", tensor(np.ones(64, np.float32)))
    with pytest.raises(errors.ShapeError) as caught:
        g.op("rms_norm", [x, weight], {}, "model.norm")
    assert "weight has 64 elements but x's last axis is 32" in caught.value.message
    assert "model.norm" in caught.value.hint


@pytest.mark.parametrize(
    ("build", "error"),
    [
        (lambda g, x: g.reshape(x, [3, 2]), errors.ShapeError),
        (lambda g, x: g.reshape(x, [-1, 4]), errors.ShapeError),
        (lambda g, x: g.reshape(x, [-1, -1, 6]), errors.ShapeError),
        (lambda g, x: g.reshape(x, [-1, 1, 1, 1, 1, 1, 6]), errors.ShapeError),
        (lambda g, x: g.slice(x, 0, 7), errors.ShapeError),
        (lambda g, x: g.slice(x, 3, 3), errors.ShapeError),
        (lambda g, x: g.slice(g.positions(), 0, 1), errors.ShapeError),
        (lambda g, x: g.op("attention", [g.reshape(x, [-1, 2, 3])], {"layer": 0}, "a"), errors.InvalidRequest),
        (lambda g, x: g.op("nonsense", [x], {}, "a"), errors.InvalidRequest),
        (lambda g, x: g.op("unary", [x], {"kind": "swish"}, "a"), errors.InvalidRequest),
        (lambda g, x: g.op("unary", [x], {"kind": 3}, "a"), errors.InvalidRequest),
        (lambda g, x: g.op("affine", [x], {"scale": float("nan")}, "a"), errors.InvalidRequest),
        (lambda g, x: g.op("affine", [x], {"scales": 1.0}, "a"), errors.InvalidRequest),
        (lambda g, x: g.op("affine", [x, x], {}, "a"), errors.InvalidRequest),
        (lambda g, x: g.op("unary", [g.positions()], {"kind": "silu"}, "a"), errors.DtypeError),
        (lambda g, x: g.op("linear", [x], {}, "a"), errors.InvalidRequest),
    ],
)
def test_bad_recordings_raise(build: Any, error: type[Exception]) -> None:
    g = core.Graph()
    x = embed(g)
    with pytest.raises(error):
        build(g, x)


def test_bad_programs_raise(device: Any) -> None:
    g = core.Graph()
    x = embed(g)
    k = g.reshape(x, [-1, 2, 3])
    g.op("kv_write", [k, k], {"layer": 1}, "kv")
    a = g.reshape(g.op("attention", [k], {"layer": 1}, "attn")[0], [-1, 6])
    g.set_output(g.op("linear", [a, g.constant("w", tensor(np.ones((9, 6), np.float32)))], {}, "head")[0])
    with pytest.raises(errors.InvalidRequest, match="0 is missing"):
        core.Program(g, device, context_length=8)
    with pytest.raises(errors.ShapeError, match="layer 1"):
        g.op("kv_write", [g.reshape(x, [-1, 1, 6])] * 2, {"layer": 1}, "again")
    for options in (
        {"context_length": 0},
        {"context_length": 8, "kv_dtype": "int8"},
        {"context_length": 8, "kv_dtype": "float8_e5m2"},
        {"context_length": 8, "passes": ["fuse"]},
    ):
        with pytest.raises(errors.InvalidRequest):
            core.Program(Llama(np.random.default_rng(0), layers=1).record(core), device, **options)


def test_tables_smaller_than_ids_raise(device: Any) -> None:
    g = core.Graph()
    x = embed(g, 9, 6)
    g.set_output(g.op("linear", [x, g.constant("w", tensor(np.ones((10, 6), np.float32)))], {}, "head")[0])
    with pytest.raises(errors.ShapeError, match="10 tokens but the embedding"):
        core.Program(g, device, context_length=8)
    g = core.Graph()
    p = g.op("embedding", [g.positions(), g.constant("wpe", tensor(np.ones((4, 6), np.float32)))], {}, "wpe")[0]
    x = g.op("binary", [embed(g, 9, 6), p], {"kind": "add"}, "add")[0]
    g.set_output(g.op("linear", [x, g.constant("w", tensor(np.ones((9, 6), np.float32)))], {}, "head")[0])
    with pytest.raises(errors.ShapeError, match="position table"):
        core.Program(g, device, context_length=5)
    core.Program(g, device, context_length=4)


def test_steps_that_do_not_fit_raise(device: Any) -> None:
    model = Llama(np.random.default_rng(1), layers=2)
    program = core.Program(model.record(core), device, context_length=16)
    step = step_for(program, device, 20)
    with pytest.raises(errors.InvalidRequest, match="no tokens"):
        program.logits(step)
    with pytest.raises(errors.ContextTooLong):
        step.begin(list(range(21)))
    assert step.length == 0
    step.begin([model.vocab])
    with pytest.raises(errors.InvalidRequest, match="token id"):
        program.logits(step)
    step.begin([1] * 16)
    with pytest.raises(errors.ContextTooLong):
        program.logits(step)
    one_layer = core.EagerStep(device, program.kv_layers[:1], 16)
    one_layer.begin([1])
    with pytest.raises(errors.InvalidRequest, match="cache layers"):
        program.logits(one_layer)


def test_null_program() -> None:
    program = core.Program.null(100, 64)
    assert (program.vocab_size, program.context_length, program.weight_bytes) == (100, 64, 0)
    assert program.device.name == "null"
    assert program.kv_bytes_per_token > 0
    with pytest.raises(errors.InvalidConfig):
        core.Program.null(0, 64)
