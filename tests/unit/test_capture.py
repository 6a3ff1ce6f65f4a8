"""Looking inside a running model: what is captured is what the eager forward and numpy compute, and disturbs nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastllm._core", reason="the native module is not built")

from tinymodel import CONFIGS, tiny_model

from fastllm import Ablate, Add, CaptureTooLarge, InvalidRequest, Model, Replace, Scale, ShapeError, UnknownNode, nn
from fastllm.tensor import Tensor

PROMPT = [int(token) for token in np.random.default_rng(5).integers(0, 61, 23)]
TOLERANCE = 1e-5  # of the spread


def far(actual: Any, expected: Any) -> float:
    """Largest difference as a share of the spread."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    return float(np.abs(actual - expected).max() / max(float(np.ptp(expected)), 1e-9))


def eagerly(model: Model, ids: list[int]) -> dict[str, Any]:
    """Every value by name, from the same model file run op by op, and the logits."""
    with nn.watch() as seen:
        logits = model.module(ids)
    return {**{name: tensor.numpy() for name, tensor in seen.items()}, "logits": logits.numpy()}


def pattern_of(q: Any, k: Any, *, scale: float, window: int = 0, cap: float = 0.0) -> Any:
    """softmax(softcap(scale q k^T) + causal mask), by numpy in float64."""
    heads = q.shape[1]
    k = np.repeat(k, heads // k.shape[1], axis=1).astype(np.float64)
    scores = np.einsum("qhd,khd->hqk", q.astype(np.float64), k) * scale
    if cap:
        scores = np.tanh(scores / cap) * cap
    at = np.arange(q.shape[0])
    hidden = at[None, :] > at[:, None]
    if window:
        hidden |= at[None, :] <= at[:, None] - window
    scores = np.where(hidden, -np.inf, scores)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


@pytest.fixture
def open_tiny(tmp_path: Path) -> Iterator[Callable[..., Model]]:
    models: list[Model] = []

    def make(kind: str = "llama", **options: Any) -> Model:
        models.append(tiny_model(tmp_path / str(len(models)), kind, **options))
        return models[-1]

    yield make
    for model in models:
        model.close()


@pytest.fixture
def model(open_tiny: Callable[..., Model]) -> Model:
    return open_tiny()


# --- names


def test_names(model: Model) -> None:
    nodes = {node.name: node for node in model.nodes()}
    assert next(iter(nodes)) == "embed"
    assert list(nodes)[-2:] == ["ln_final", "logits"]
    block = ["resid_pre", "ln1", "attn.q", "attn.k", "attn.v", "attn.rot_q", "attn.rot_k", "attn.pattern", "attn.z"]
    block += ["attn_out", "resid_mid", "ln2", "mlp.pre", "mlp.up", "mlp.post", "mlp_out", "resid_post"]
    assert [node.name for node in model.nodes("blocks.1.*")] == [f"blocks.1.{name}" for name in block]
    assert nodes["blocks.2.attn.q"].shape == ("tokens", 4, 6)
    assert nodes["blocks.2.attn.k"].shape == ("tokens", 2, 6)
    assert nodes["blocks.0.attn.pattern"].shape == (4, "tokens", "tokens")
    assert nodes["blocks.0.mlp.post"].shape == ("tokens", 36)
    assert nodes["logits"].shape == ("tokens", 61)
    assert [node.name for node in model.nodes() if not node.editable] == [f"blocks.{n}.attn.pattern" for n in range(3)]


def test_names_are_found_as_people_write_them(model: Model) -> None:
    cap = model.blocking.capture(PROMPT, "blocks.0.attn.hook_z", "blocks.-1.hook_resid_post", "*.attn.pattern")
    assert cap.names == (
        "blocks.0.attn.pattern",
        "blocks.0.attn.z",
        "blocks.1.attn.pattern",
        "blocks.2.attn.pattern",
        "blocks.2.resid_post",
    )
    assert cap["blocks.-1.resid_post"].shape == (23, 24)
    with pytest.raises(UnknownNode) as error:
        model.blocking.stream(PROMPT, capture=["blocks.1.atn.z"])
    assert error.value.name == "blocks.1.atn.z"
    assert "blocks.1.attn.z" in error.value.matches
    assert "blocks.1.attn.z" in str(error.value)
    for name in ("", "nothing.*", "blocks.7.attn.z", "blocks.-9.attn.z"):
        with pytest.raises(UnknownNode):
            model.nodes(name)
    with pytest.raises(UnknownNode, match="was not captured"):
        cap["logits"]
    with pytest.raises(InvalidRequest):
        model.blocking.stream(PROMPT, capture=[3])  # type: ignore[list-item]
    assert model.stats().running == 0


# --- values


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("chunk", [512, 7])
def test_values_are_those_of_the_eager_forward(open_tiny: Callable[..., Model], kind: str, chunk: int) -> None:
    """Every node, at once and in chunks; and while 9 tokens are generated, position by position from the cache."""
    model = open_tiny(kind, prefill_chunk=chunk)
    cap = model.blocking.capture(PROMPT, max_new_tokens=9)
    assert cap.completion is not None
    ids = PROMPT + list(cap.completion.token_ids)
    assert cap.positions == len(ids) - 1 == 31
    assert cap.token_ids == tuple(ids[:-1])
    assert cap.prompt_tokens == 23
    seen = eagerly(model, ids[:-1])
    assert set(cap.names) == {node.name for node in model.nodes()}
    assert set(seen) == {name for name in cap.names if not name.endswith("pattern")}
    for name, expected in seen.items():
        assert far(cap[name].numpy(), expected) < TOLERANCE, name
    assert [int(row.argmax()) for row in cap["logits"].numpy()[22:]] == ids[23:]
    scale = 13**-0.5 if kind == "gemma2" else cap["blocks.0.attn.q"].shape[2] ** -0.5
    for layer in range(3):
        options = {"window": 9 if layer % 2 == 0 else 0, "cap": 2.0} if kind == "gemma2" else {}
        expected = pattern_of(
            seen[f"blocks.{layer}.attn.rot_q"], seen[f"blocks.{layer}.attn.rot_k"], scale=scale, **options
        )
        pattern = cap.attention(layer).numpy()
        assert far(pattern, expected) < TOLERANCE, layer
        assert not np.triu(pattern, 1).any()
        assert np.allclose(pattern.sum(-1), 1, atol=1e-6)
        v = np.repeat(seen[f"blocks.{layer}.attn.v"], pattern.shape[0] // seen[f"blocks.{layer}.attn.v"].shape[1], 1)
        z = np.einsum("hqk,khd->qhd", pattern.astype(np.float64), v.astype(np.float64))
        assert far(cap[f"blocks.{layer}.attn.z"].numpy(), z) < TOLERANCE


def test_the_same_bits_as_an_uncaptured_request(model: Model) -> None:
    plain = model.blocking.logits(PROMPT)
    assert np.array_equal(model.blocking.capture(PROMPT, "logits", "blocks.*")["logits"].numpy(), plain)


def test_bfloat16_weights(open_tiny: Callable[..., Model], tmp_path: Path) -> None:
    """Weights and cache in bfloat16: values are those of the same bits run eagerly."""
    from tinymodel import opened
    from unit.tiny_checkpoints import bfloat16_bits, weights_for, write_checkpoint

    weights = {name: bfloat16_bits(value) for name, value in weights_for(CONFIGS["llama"], seed=3).items()}
    with opened(write_checkpoint(tmp_path / "bf16", CONFIGS["llama"], weights)) as model:
        cap = model.blocking.capture(PROMPT)
        for name, expected in eagerly(model, PROMPT).items():
            assert far(cap[name].numpy(), expected) < TOLERANCE, name


def test_it_grows_with_its_stream(model: Model) -> None:
    stream = model.blocking.stream(PROMPT, capture=["blocks.1.resid_post", "*.pattern"], lookahead=0, max_new_tokens=5)
    cap = stream.capture
    assert cap is not None
    assert cap.positions == 0
    assert cap["blocks.1.resid_post"].shape == (0, 24)
    assert cap.attention(1).shape == (4, 0, 0)
    for count, _ in enumerate(stream):
        assert cap.positions == 23 + count
        assert model.stats().steps == count + 1, "one step a read"
        assert cap["blocks.1.resid_post"].shape == (23 + count, 24)
        assert cap.attention(-1, head=-1).shape == (23 + count, 23 + count)
        assert cap.completion is None or count == 4
    assert cap.completion is stream.completion is not None
    assert len(cap.labels) == 27
    assert cap.labels[:3] == tuple(chr(33 + token) for token in PROMPT[:3])
    assert cap.nbytes == 4 * (27 * 24 + 3 * 4 * 27 * 28 // 2)
    assert repr(cap).startswith("<Capture 4 nodes · 27 positions")
    with pytest.raises(InvalidRequest, match="which has 4 heads"):
        cap.attention(0, head=4)


def test_reading_while_it_runs(model: Model) -> None:
    """A reader in another thread sees whole rows only, and always the same ones."""
    stream = model.blocking.stream(PROMPT, capture=["*"], max_new_tokens=120, lookahead=None)
    cap = stream.capture
    assert cap is not None
    rows: list[Any] = []

    def read() -> None:
        while not rows or rows[-1].shape[0] < 142:
            rows.append(cap["blocks.2.resid_post"].numpy())
            assert np.isfinite(cap["blocks.1.attn.pattern"].numpy()).all()

    thread = threading.Thread(target=read)
    thread.start()
    stream.result()
    thread.join(20)
    assert rows[-1].shape == (142, 24)
    assert all(np.array_equal(some, rows[-1][: len(some)]) for some in rows)


def test_logit_lens(model: Model) -> None:
    cap = model.blocking.capture(PROMPT, "*.resid_post", "logits")
    lens = cap.logit_lens(top=3)
    logits = cap["logits"].numpy().astype(np.float64)
    logprobs = (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )
    assert lens.layers == (0, 1, 2)
    assert lens.ids.shape == lens.logprobs.shape == (3, 23, 3)
    assert np.array_equal(lens.ids[-1], np.argsort(-logits, 1)[:, :3])
    assert np.allclose(lens.logprobs[-1], -np.sort(-logprobs, 1)[:, :3], atol=1e-4)
    assert np.allclose(lens.entropy[-1], -(np.exp(logprobs) * logprobs).sum(1), atol=1e-4)
    assert np.array_equal(lens.target_ids, logits.argmax(1))
    assert not lens.target_rank[-1].any()
    weights = {name: item.data.numpy() for name, item in model.module.named_parameters() if item.data is not None}
    x = cap["blocks.0.resid_post"].numpy().astype(np.float64)
    normed = x / np.sqrt((x**2).mean(1, keepdims=True) + 1e-6) * weights["model.norm.weight"]
    first = normed @ weights["lm_head.weight"].T.astype(np.float64)
    assert np.array_equal(lens.ids[0, :, 0], first.argmax(1))
    behind = (first > np.take_along_axis(first, lens.target_ids[:, None].astype(int), 1)).sum(1)
    assert np.array_equal(lens.target_rank[0], behind)
    assert lens.texts[1][4][0] == chr(33 + int(lens.ids[1, 4, 0]))
    some = cap.logit_lens(top=1, layers=[-1, 0], positions=[-1, 2], target=7)
    assert (some.layers, some.positions, list(some.target_ids)) == ((2, 0), (22, 2), [7, 7])
    assert np.array_equal(some.ids[1, 0], lens.ids[0, 22, :1])
    assert "block 2" in repr(lens)
    for wrong in ({"layers": [5]}, {"positions": [23]}, {"top": 0}, {"target": 61}):
        with pytest.raises(InvalidRequest):
            cap.logit_lens(**wrong)
    with pytest.raises(InvalidRequest, match="resid_post"):
        model.blocking.capture(PROMPT, "logits").logit_lens()


# --- edits


def test_ablating_a_head_is_taking_its_weights_away(model: Model) -> None:
    """Against the eager forward of a model whose output product does not read the head."""
    steered = model.blocking.logits(PROMPT, steer={"blocks.1.attn.z": Ablate(head=2)})
    plain = model.blocking.logits(PROMPT)
    product = model.module.model.layers[1].self_attn.o_proj
    weight = product.weight.numpy().copy()
    without = weight.copy()
    without[:, 12:18] = 0
    product.weight = Tensor(without)
    try:
        expected = model.module(PROMPT).numpy()
    finally:
        product.weight = Tensor(weight)
    assert far(steered, expected) < TOLERANCE
    assert far(steered, plain) > 1e-3
    assert np.array_equal(model.blocking.logits(PROMPT), plain)


def test_adding_a_direction(model: Model) -> None:
    """At one position of the last layer: the other positions keep their bits, this one's logits are numpy's."""
    direction = np.random.default_rng(1).normal(size=24).astype(np.float32)
    steer = {"blocks.2.resid_post": Add(direction, scale=3.0, positions=-2)}
    plain = model.blocking.capture(PROMPT, "blocks.2.resid_post", "logits")
    cap = model.blocking.capture(PROMPT, "blocks.2.resid_post", "logits", steer=steer)
    others = np.arange(23) != 21
    assert np.array_equal(cap["logits"].numpy()[others], plain["logits"].numpy()[others])
    moved = plain["blocks.2.resid_post"].numpy()[21] + np.float32(3) * direction
    assert far(cap["blocks.2.resid_post"].numpy()[21], moved) < TOLERANCE, "a captured node shows what edits leave"
    expected = model.module.unembed(Tensor(moved[None])).numpy()[0]
    assert far(cap["logits"].numpy()[21], expected) < TOLERANCE
    assert far(expected, plain["logits"].numpy()[21]) > 1e-2


def test_patching_one_run_into_another(model: Model) -> None:
    """The stream of another prompt put in place of this one's: from there on it is the other one."""
    other = [(token + 7) % 61 for token in PROMPT]
    donor = model.blocking.capture(other, "blocks.0.resid_post", "logits")
    patch = {"blocks.0.resid_post": Replace(donor["blocks.0.resid_post"].numpy(), positions=slice(0, 23))}
    got = model.blocking.capture(PROMPT, "logits", "blocks.1.resid_pre", steer=patch)
    assert np.array_equal(got["blocks.1.resid_pre"].numpy(), donor["blocks.0.resid_post"].numpy())
    assert far(got["logits"].numpy(), donor["logits"].numpy()) < TOLERANCE


def test_edits_reach_the_cache(model: Model) -> None:
    """Queries, keys and values of one head, edited: the attention is numpy's over edited ones, in decode steps, too."""
    steer = {
        "blocks.1.attn.rot_k": Scale(0.25, head=1),
        "blocks.1.attn.v": [Replace(2.0, head=0, channels=[0, 3]), Ablate(head=1, channels=slice(4, None))],
        "blocks.1.attn.rot_q": Add(0.5, positions=slice(20, None)),
    }
    names = [f"blocks.1.attn.{name}" for name in ("rot_q", "rot_k", "v", "pattern", "z")]
    cap = model.blocking.capture(PROMPT, *names, steer=steer, max_new_tokens=6)
    q, k, v, pattern, z = (cap[name].numpy() for name in names)
    assert cap.positions == 28
    assert (v[:, 0, [0, 3]] == 2).all()
    assert not v[:, 1, 4:].any()
    assert v[:, 1, :4].any()
    assert far(pattern, pattern_of(q, k, scale=6**-0.5)) < TOLERANCE
    assert (
        far(z, np.einsum("hqk,khd->qhd", pattern.astype(np.float64), np.repeat(v, 2, 1).astype(np.float64))) < TOLERANCE
    )
    plain = model.blocking.capture(list(cap.token_ids), "blocks.1.attn.rot_k", "blocks.1.attn.rot_q")
    assert far(k[:, 1], plain["blocks.1.attn.rot_k"].numpy()[:, 1] * 0.25) < TOLERANCE
    assert far(q[20:], plain["blocks.1.attn.rot_q"].numpy()[20:] + 0.5) < TOLERANCE
    assert far(q[:20], plain["blocks.1.attn.rot_q"].numpy()[:20]) < TOLERANCE


def test_steered_logits_decide_what_is_said(model: Model) -> None:
    bias = np.zeros(61, np.float32)
    bias[17] = 1000
    text = model.blocking.generate(PROMPT, steer={"logits": Add(bias, positions=slice(25, None))}, max_new_tokens=6)
    plain = model.blocking.generate(PROMPT, max_new_tokens=3)
    assert text.token_ids[:3] == plain.token_ids
    assert text.token_ids[3:] == (17, 17, 17)
    scores = model.blocking.score(PROMPT, [1, 2], steer={"logits": Ablate()})
    assert np.allclose(scores.logprobs, -np.log(61), atol=1e-6)


def test_positions_and_values(model: Model) -> None:
    """A row for each position, in the order given; values that do not fit are told with both shapes."""
    rows = np.arange(48, dtype=np.float32).reshape(2, 24)
    cap = model.blocking.capture(PROMPT, "embed", steer={"embed": Replace(rows, positions=[5, -1])})
    got = cap["embed"].numpy()
    assert np.array_equal(got[[5, 22]], rows)
    heads = np.arange(4, dtype=np.float32)[:, None]
    cap = model.blocking.capture(PROMPT, "blocks.0.attn.z", steer={"blocks.0.attn.z": Replace(heads)})
    assert np.array_equal(cap["blocks.0.attn.z"].numpy(), np.broadcast_to(heads, (23, 4, 6)))
    wrong: list[tuple[Any, type[Exception], str]] = [
        ({"embed": Add(np.zeros(23))}, ShapeError, r"\[23\].*\[24\]"),
        ({"embed": Add(np.zeros((2, 24)))}, ShapeError, "all are edited"),
        ({"embed": Add(np.zeros((2, 24)), positions=[1])}, ShapeError, "2 positions, but 1"),
        ({"embed": Ablate(head=0)}, InvalidRequest, "no heads"),
        ({"blocks.0.attn.z": Ablate(head=4)}, InvalidRequest, "has 4"),
        ({"blocks.0.attn.z": Ablate(channels=[0, 0])}, InvalidRequest, "twice"),
        ({"blocks.0.attn.pattern": Ablate()}, InvalidRequest, "attn.z"),
        ({"nothing": Ablate()}, UnknownNode, "model.nodes"),
        ({"embed": "zero"}, InvalidRequest, "Ablate"),
        ({"embed": Add([float("nan")] * 24)}, InvalidRequest, "finite"),
        ({"embed": Ablate(positions=slice(0, 9, 2))}, InvalidRequest, "steps of 1"),
        ({"embed": Ablate(positions=-24)}, InvalidRequest, "before a prompt of 23"),
        ([Ablate()], InvalidRequest, "mapping"),
    ]
    for steer, kind, text in wrong:
        with pytest.raises(kind, match=text):
            model.blocking.generate(PROMPT, steer=steer, max_new_tokens=1)
    assert model.steer({"blocks.*.attn.z": Ablate(head=1)}).edits.keys() == {f"blocks.{n}.attn.z" for n in range(3)}


# --- beside others


def test_others_keep_their_bits(open_tiny: Callable[..., Model]) -> None:
    """A crowd gives the tokens and log-probabilities it gives alone, whatever is captured and edited beside it."""
    model = open_tiny(max_batch_tokens=48, prefill_chunk=16, max_running=32)
    prompts = [[(token * step + step) % 61 for token in PROMPT[: 3 + 2 * step]] for step in range(1, 9)]
    options: dict[str, Any] = {"max_new_tokens": 20, "logprobs": 2, "temperature": 0.8, "lookahead": None}

    def crowd(beside: bool) -> list[Any]:
        streams = []
        for index, prompt in enumerate(prompts):
            streams.append(model.blocking.stream(prompt, seed=index, **options))
            if beside:
                steer = {"blocks.0.attn.z": Ablate(head=index % 4)} if index % 2 else None
                streams.append(model.blocking.stream(prompt, seed=index, capture=["*"], steer=steer, **options))
        done = [stream.result() for stream in streams]
        return [[(t.id, t.logprob, t.top) for t in result.tokens] for result in done[:: 2 if beside else 1]]

    alone = crowd(False)
    assert crowd(True) == alone
    captured = model.blocking.stream(prompts[3], seed=3, capture=["*"], **options).result()
    assert [(t.id, t.logprob, t.top) for t in captured.tokens] == alone[3], "and looking changes nothing"


def test_steered_keys_are_not_shared(model: Model) -> None:
    prompt = (PROMPT * 3)[:64]
    steering = model.steer({"blocks.0.attn.z": Ablate(head=1)})
    steered = model.blocking.generate(prompt, steer=steering, max_new_tokens=8)
    plain = model.blocking.generate(prompt, max_new_tokens=8)
    assert plain.usage.cached_tokens == 0, "nothing of the steered request"
    assert plain.token_ids != steered.token_ids
    again = model.blocking.generate(prompt, steer=steering, max_new_tokens=8)
    assert again.usage.cached_tokens == 48, "its own kind may share"
    assert again.token_ids == steered.token_ids
    assert model.blocking.generate(prompt, max_new_tokens=8).token_ids == plain.token_ids
    late = model.steer({"blocks.0.attn.z": Ablate(head=1, positions=-1)})
    first = model.blocking.generate(prompt, steer=late, max_new_tokens=8)
    assert model.blocking.generate(prompt, steer=late, max_new_tokens=8).token_ids == first.token_ids
    assert model.blocking.generate(prompt[:50], steer=late).usage.cached_tokens == 0, "edits from the end move with it"


def test_captures_take_nothing_from_the_cache(model: Model) -> None:
    prompt = (PROMPT * 3)[:64]
    model.blocking.generate(prompt, max_new_tokens=1)
    cap = model.blocking.capture(prompt, "embed", max_new_tokens=2)
    assert cap.completion is not None
    assert cap.completion.usage.cached_tokens == 0
    assert cap.positions == 65


def test_preempted_captures_are_whole(open_tiny: Callable[..., Model]) -> None:
    """A pool too small for all: requests are taken out, computed again, and their captures have every position once."""
    per_token = open_tiny().info.kv_bytes_per_token
    model = open_tiny(kv_memory=per_token * 16 * 14, prefill_chunk=16, max_batch_tokens=64)
    prompts = [PROMPT[index:] + PROMPT[:index] for index in range(6)]
    streams = [model.blocking.stream(p, capture=["*.attn.pattern", "*.resid_post"], max_new_tokens=40) for p in prompts]
    done = [stream.result() for stream in streams]
    assert sum(result.timing.preemptions for result in done) > 0
    for stream, prompt, result in zip(streams, prompts, done, strict=True):
        ids = prompt + list(result.token_ids)
        assert stream.capture is not None
        assert stream.capture.token_ids == tuple(ids[:-1])
        seen = eagerly(model, ids[:-1])
        for layer in range(3):
            name = f"blocks.{layer}.resid_post"
            assert far(stream.capture[name].numpy(), seen[name]) < TOLERANCE
            expected = pattern_of(seen[f"blocks.{layer}.attn.rot_q"], seen[f"blocks.{layer}.attn.rot_k"], scale=6**-0.5)
            assert far(stream.capture.attention(layer).numpy(), expected) < TOLERANCE


# --- limits and ends


def test_too_much_is_refused_with_sizes(model: Model) -> None:
    with pytest.raises(CaptureTooLarge) as error:
        model.blocking.capture(PROMPT, "logits", max_capture_bytes=5000)
    assert (error.value.needed_bytes, error.value.max_bytes) == (23 * 61 * 4, 5000)
    assert "5612 bytes" in str(error.value)
    assert model.stats().steps == 0


def test_too_much_while_it_runs_ends_that_request_alone(model: Model) -> None:
    free = model.stats().kv_blocks_free
    other = model.blocking.stream(PROMPT, max_new_tokens=60)
    stream = model.blocking.stream(PROMPT, capture=["logits"], max_capture_bytes=30 * 61 * 4, max_new_tokens=60)
    with pytest.raises(CaptureTooLarge, match="max_capture_bytes is 7320") as error:
        list(stream)
    assert len(stream.tokens) == 8
    assert error.value.max_bytes == 7320
    assert stream.capture is not None
    assert stream.capture["logits"].shape == (30, 61)
    assert len(other.result().tokens) == 60
    until = time.monotonic() + 5
    while model.stats().kv_blocks_free < free and time.monotonic() < until:
        time.sleep(0.001)
    assert model.stats().kv_blocks_free == free


def test_cancelling_frees_everything(model: Model) -> None:
    free = model.stats().kv_blocks_free
    for _ in range(20):
        stream = model.blocking.stream(PROMPT, capture=["*"], steer={"embed": Scale(1.5)}, max_new_tokens=None)
        next(stream)
        stream.cancel()
        kept = stream.capture
        del stream
    assert kept is not None
    until = time.monotonic() + 5
    while (model.stats().running or model.stats().kv_blocks_free < free) and time.monotonic() < until:
        time.sleep(0.001)
    assert (model.stats().running, model.stats().kv_blocks_free) == (0, free)
    assert kept.positions >= 23
    assert kept["embed"].shape == (kept.positions, 24), "what was captured can still be read"


def test_chat_models_without_modules_say_so() -> None:
    from nullmodel import null_model

    with null_model() as model, pytest.raises(InvalidRequest, match="modules"):
        model.nodes()
