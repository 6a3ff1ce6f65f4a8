"""Every sampling stage against transformers' processors, the draws against the distribution they should follow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fastllm.errors import InternalError, InvalidConfig, InvalidRequest

core = pytest.importorskip("fastllm._core", reason="the native module is not built")
torch = pytest.importorskip("torch", reason="transformers' processors need torch")
process = pytest.importorskip("transformers.generation.logits_process")

VOCAB = 300
Row = npt.NDArray[np.float32]


@pytest.fixture
def random(request: pytest.FixtureRequest) -> np.random.Generator:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print(f"seed {seed}")
    return np.random.default_rng(seed)


def ours(logits: Row, tokens: list[int], **params: Any) -> Row:
    prompt = params.pop("prompt_tokens", 0)
    result: Row = core.sample_logits(logits, tokens, params, prompt_tokens=prompt)["logits"]
    return result


def theirs(logits: Row, tokens: list[int], *processors: Any) -> Row:
    scores = torch.from_numpy(logits.copy())[None]
    ids = torch.tensor([tokens], dtype=torch.long)
    for processor in processors:
        scores = processor(ids, scores)
    result: Row = scores[0].numpy()
    return result


def assert_same(mine: Row, other: Row) -> None:
    assert np.array_equal(np.isneginf(mine), np.isneginf(other))
    kept = ~np.isneginf(other)
    assert kept.any()
    np.testing.assert_allclose(mine[kept], other[kept], rtol=2e-6, atol=1e-6)


def row(random: np.random.Generator, spread: float = 3.0) -> Row:
    return (random.standard_normal(VOCAB) * spread).astype(np.float32)


WARPERS = ("temperature", "top_k", "top_p", "min_p", "typical_p")


def warper(name: str, random: np.random.Generator) -> tuple[dict[str, Any], Any]:
    """A random setting of one stage: our parameter and the transformers class that does the same."""
    if name == "temperature":
        value = float(random.uniform(0.1, 3))
        return {name: value}, process.TemperatureLogitsWarper(value)
    if name == "top_k":
        count = int(random.integers(1, VOCAB + 50))
        return {name: count}, process.TopKLogitsWarper(count)
    if name == "min_p":
        value = float(random.uniform(0.001, 0.9))
        return {name: value}, process.MinPLogitsWarper(value)
    value = float(random.uniform(0.05, 0.99))
    return {name: value}, (process.TopPLogitsWarper if name == "top_p" else process.TypicalLogitsWarper)(value)


@pytest.mark.parametrize("name", WARPERS)
def test_each_warper_as_in_transformers(name: str, random: np.random.Generator) -> None:
    for _ in range(40):
        params, processor = warper(name, random)
        logits = row(random, float(random.uniform(0.2, 5)))
        assert_same(ours(logits, [1, 2], **params), theirs(logits, [1, 2], processor))


def test_all_warpers_in_transformers_order(random: np.random.Generator) -> None:
    for _ in range(60):
        params: dict[str, Any] = {}
        processors = []
        for name in WARPERS:
            if random.random() < 0.7:
                more, processor = warper(name, random)
                params |= more
                processors.append(processor)
        logits = row(random)
        assert_same(ours(logits, [1], **params), theirs(logits, [1], *processors))


def test_processors_in_transformers_order(random: np.random.Generator) -> None:
    for _ in range(60):
        tokens = random.integers(0, 12, size=int(random.integers(1, 30))).tolist()
        prompt = int(random.integers(0, len(tokens) + 1))
        params: dict[str, Any] = {"prompt_tokens": prompt, "temperature": 1.0}
        processors = []
        if random.random() < 0.5:
            bias = {
                int(t): float(b) for t, b in zip(random.integers(0, VOCAB, 5), random.normal(size=5) * 5, strict=True)
            }
            params["logit_bias"] = bias
            processors.append(process.SequenceBiasLogitsProcessor({(t,): b for t, b in bias.items()}))
        if random.random() < 0.5:
            params["repetition_penalty"] = penalty = float(random.uniform(0.5, 2))
            processors.append(process.RepetitionPenaltyLogitsProcessor(penalty))
        if random.random() < 0.5:
            params["no_repeat_ngram"] = n = int(random.integers(1, 4))
            processors.append(process.NoRepeatNGramLogitsProcessor(n))
        if random.random() < 0.5:
            words = [random.integers(0, 12, size=int(random.integers(1, 3))).tolist() for _ in range(4)]
            words = [word for word in words if len(word) <= len(tokens)]  # transformers looks at no shorter text
            if words:
                params["bad_words"] = words
                processors.append(process.NoBadWordsLogitsProcessor(words, eos_token_id=[VOCAB - 1]))
        if random.random() < 0.5:
            params |= {"min_new_tokens": 5, "max_new_tokens": 50, "eos_token_ids": [3, 7]}
            processors.append(process.MinNewTokensLengthLogitsProcessor(prompt, 5, [3, 7]))
        logits = row(random)
        assert_same(ours(logits, tokens, **params), theirs(logits, tokens, *processors))


def test_presence_frequency_and_window_by_formula(random: np.random.Generator) -> None:
    for _ in range(40):
        tokens = random.integers(0, 12, size=int(random.integers(1, 40))).tolist()
        prompt = int(random.integers(0, len(tokens) + 1))
        window = int(random.integers(0, 20))
        presence, frequency = (float(x) for x in random.uniform(-2, 2, 2))
        repetition = float(random.uniform(0.5, 2))
        logits = row(random)
        expected = logits.copy()
        start = max(0, len(tokens) - window) if window else 0
        for token in set(tokens[start:]):
            expected[token] *= repetition if expected[token] < 0 else 1 / repetition
        output = tokens[max(start, prompt) :]
        for token in set(output):
            expected[token] -= presence + frequency * output.count(token)
        mine = ours(
            logits,
            tokens,
            prompt_tokens=prompt,
            presence_penalty=presence,
            frequency_penalty=frequency,
            repetition_penalty=repetition,
            penalty_window=window,
        )
        np.testing.assert_allclose(mine, expected, rtol=1e-5, atol=1e-5)


def test_stop_tokens_are_held_off_until_min_new_tokens() -> None:
    logits = np.zeros(VOCAB, np.float32)
    params = {"min_new_tokens": 2, "stop_token_ids": [5], "eos_token_ids": [6], "ignore_eos": True}
    early = ours(logits, [1, 2], prompt_tokens=1, **params)
    assert np.flatnonzero(np.isneginf(early)).tolist() == [5]
    assert not np.isneginf(ours(logits, [1, 2, 3], prompt_tokens=1, **params)).any()


def test_draws_follow_the_distribution(random: np.random.Generator) -> None:
    logits = (random.standard_normal(40) * 1.5).astype(np.float32)
    draws = 40_000
    for params in ({}, {"temperature": 0.7}, {"top_k": 10}, {"top_p": 0.8}, {"temperature": 1.5, "min_p": 0.05}):
        result = core.sample_logits(logits, [1], {"seed": int(random.integers(2**40)), **params}, draws=draws)
        left = result["logits"].astype(np.float64)
        probabilities = np.exp(left - left.max())
        probabilities /= probabilities.sum()
        counts = np.bincount(result["ids"], minlength=40)
        assert counts[probabilities == 0].sum() == 0
        kept = probabilities > 0
        expected = probabilities[kept] * draws
        chi_square = float(((counts[kept] - expected) ** 2 / expected).sum())
        freedom = int(kept.sum()) - 1
        assert abs(chi_square - freedom) < 7 * math.sqrt(2 * freedom), (params, chi_square, freedom)


def test_positions_draw_independently_and_seeds_matter() -> None:
    logits = np.zeros(1000, np.float32)
    by_position = [int(core.sample_logits(logits, [0] * n, {"seed": 1})["ids"][0]) for n in range(1, 200)]
    assert len(set(by_position)) > 150
    again = [int(core.sample_logits(logits, [0] * n, {"seed": 1})["ids"][0]) for n in range(1, 200)]
    assert by_position == again
    other = [int(core.sample_logits(logits, [0] * n, {"seed": 2})["ids"][0]) for n in range(1, 200)]
    assert sum(a == b for a, b in zip(by_position, other, strict=True)) < 10
    wide = [int(core.sample_logits(logits, [0], {"seed": 1 + 2**s})["ids"][0]) for s in range(64)]
    assert len(set(wide)) > 50  # every bit of the seed counts


def test_the_generator_is_philox() -> None:
    """The draw is the inverse CDF at the number of Random123's published known-answer vector."""
    # Random123 known answers, philox4x32-10: counter 0, key 0 begins with 6627e8d5 e169c58d.
    wide = (0x6627E8D5 << 32 | 0xE169C58D) >> 11
    uniform = wide / 2**53
    logits = np.zeros(100_000, np.float32)
    # Position 0 is the empty history; the chosen id of equal probabilities is the cell that holds the number.
    assert int(core.sample_logits(logits, [], {"seed": 0})["ids"][0]) == int(uniform * 100_000)


def test_greedy_takes_the_best_and_the_first_of_equals(random: np.random.Generator) -> None:
    logits = row(random)
    logits[[20, 90, 200]] = 50.0
    assert core.sample_logits(logits, [1], {"temperature": 0})["ids"].tolist() == [20]
    result = core.sample_logits(logits, [1], {"temperature": 0, "bad_words": [[20]]})
    assert result["ids"].tolist() == [90]


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_logprobs_raw_and_sampled(temperature: float, random: np.random.Generator) -> None:
    logits = row(random)
    raw = torch.log_softmax(torch.from_numpy(logits).double(), 0).numpy()
    settings = {"temperature": temperature, "top_k": 20, "logprobs": 5, "logit_bias": {3: 2.0}, "seed": 9}
    result = core.sample_logits(logits, [1], settings)
    assert result["logprob"] == pytest.approx(raw[result["ids"][0]], abs=1e-5)
    best = np.argsort(-raw)[:5]
    assert [i for i, _ in result["top"]] == best.tolist()
    np.testing.assert_allclose([p for _, p in result["top"]], raw[best], atol=1e-5)

    result = core.sample_logits(logits, [1], settings | {"logprobs_mode": "sampled"})
    filtered = torch.log_softmax(torch.from_numpy(result["logits"]).double(), 0).numpy()
    assert result["logprob"] == pytest.approx(filtered[result["ids"][0]], abs=1e-5)
    best = np.argsort(-filtered)[:5]
    assert [i for i, _ in result["top"]] == best.tolist()
    np.testing.assert_allclose([p for _, p in result["top"]], filtered[best], atol=1e-5)


def test_a_large_vocabulary_is_filtered_as_exactly(random: np.random.Generator) -> None:
    logits = (random.standard_normal(151_936) * 2).astype(np.float32)
    for params, processor in (
        ({"top_k": 50}, process.TopKLogitsWarper(50)),
        ({"top_k": 6000}, process.TopKLogitsWarper(6000)),
        ({"min_p": 0.02}, process.MinPLogitsWarper(0.02)),
    ):
        assert_same(ours(logits, [1], **params), theirs(logits, [1], processor))
    mine = ours(logits, [1], top_p=0.9)
    kept = ~np.isneginf(mine)
    probabilities = np.exp(logits.astype(np.float64) - logits.max())
    probabilities /= probabilities.sum()
    assert probabilities[kept].sum() >= 0.9 - 1e-6
    assert probabilities[kept].sum() - probabilities[kept].min() < 0.9 + 1e-6
    assert logits[kept].min() > logits[~kept].max()


def test_equal_logits_keep_the_fewest() -> None:
    assert (~np.isneginf(ours(np.zeros(100, np.float32), [1], top_p=0.25))).sum() == 25


def test_bad_rows_are_typed_errors() -> None:
    logits = np.zeros(10, np.float32)
    logits[4] = np.nan
    for temperature in (0.0, 1.0):
        with pytest.raises(InternalError, match="NaN"):
            core.sample_logits(logits, [1], {"temperature": temperature})
    logits[4] = np.inf
    with pytest.raises(InternalError, match="inf"):
        core.sample_logits(logits, [1], {})
    with pytest.raises(InvalidConfig, match="leave none"):
        core.sample_logits(np.zeros(2, np.float32), [1], {"bad_words": [[0], [1]]})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": math.nan}, "temperature is"),
        ({"top_p": 0}, "top_p is 0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"top_k": -3}, "top_k is -3"),
        ({"typical_p": 0}, "typical_p"),
        ({"min_p": 2}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"max_new_tokens": -2}, "max_new_tokens is -2"),
        ({"min_new_tokens": 9, "max_new_tokens": 3}, "min_new_tokens is 9 but max_new_tokens is 3"),
        ({"stop": [""]}, "stop"),
        ({"stop_token_ids": [10]}, "stop_token_ids holds token 10"),
        ({"logit_bias": {-1: 1.0}}, "logit_bias holds token -1"),
        ({"logit_bias": {1: math.inf}}, "logit_bias"),
        ({"bad_words": [[]]}, "bad_words"),
        ({"bad_words": [[1, 99]]}, "bad_words holds token 99"),
        ({"logprobs": -5}, "logprobs"),
        ({"logprobs_mode": "other"}, "logprobs_mode"),
        ({"max_time_s": -1}, "max_time_s"),
        ({"top_q": 1}, 'no sampling parameter "top_q"'),
        ({"top_k": "many"}, "top_k is 'many'"),
        ({"temperature": [1]}, "temperature is"),
    ],
)
def test_refusals_name_the_field(params: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message.replace("(", r"\(")):
        core.sample_logits(np.zeros(10, np.float32), [1], params)


def test_hostile_histories() -> None:
    with pytest.raises(InvalidRequest, match="10"):
        core.sample_logits(np.zeros(10, np.float32), [10], {})
    with pytest.raises(InvalidRequest, match="prompt_tokens"):
        core.sample_logits(np.zeros(10, np.float32), [1], {}, prompt_tokens=2)
    with pytest.raises(InvalidRequest, match="token id 1 is a str"):
        core.sample_logits(np.zeros(10, np.float32), [1, "x"], {})
