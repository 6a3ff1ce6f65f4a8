"""Solutions of the exercises, and wrong answers with a word that the reply to them must hold. Not for learners.

`RIGHT` and `WRONG` have what goes into `check(number, answer)`. A wrong answer may also be one that raises.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import numpy as np

import fastllm
from fastllm import nn

RIGHT: dict[str, list[Any]] = {}
WRONG: dict[str, list[tuple[Any, str]]] = {}


def tokenizer() -> fastllm.Tokenizer:
    return fastllm.Tokenizer.load("demo")


# --- 01 -----------------------------------------------------------------------------------------------------------


def show_each(ids: list[int]) -> list[str]:
    shown, kept = [], b""
    for id_ in ids:
        kept += tokenizer().token_bytes(id_)
        cut = len(kept)
        for back in range(1, min(4, len(kept)) + 1):
            first = kept[-back]
            if first >= 0xC0:
                needed = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
                cut = len(kept) if back >= needed else len(kept) - back
                break
            if first < 0x80:
                break
        shown.append(kept[:cut].decode())
        kept = kept[cut:]
    return shown


def show_late(ids: list[int]) -> list[str]:
    """Right text, all of it at the end."""
    return [""] * (len(ids) - 1) + [tokenizer().decode(ids)]


RIGHT["1.1"] = ["function", "assistant", "temperature"]
WRONG["1.1"] = [
    ("strawberry", "5 tokens"),
    (" butterfly", "space"),
    ("Calculate", "lower-case"),
    ("sky", "3 letters"),
    (7, "quotes"),
]
RIGHT["1.2"] = ["🦊" * 10, "👩‍👩‍👧‍👦🦊🦊🦊"]
WRONG["1.2"] = [("🦊" * 11, "at most 10"), ("abcdefghij", "tokens"), (b"x", "bytes")]
RIGHT["1.3"] = [show_each]
WRONG["1.3"] = [
    (lambda ids: [tokenizer().decode([id_]) for id_ in ids], "broken"),
    (show_late, "holds back"),
    (lambda ids: [tokenizer().decode(ids)], "one for each token"),
    (lambda ids: ["?"] * len(ids), "Joined"),
    (lambda ids: tokenizer().decode(ids), "list"),
    (lambda ids: 1 / 0, "ZeroDivisionError"),
    ("show_each", "function itself"),
]

# --- 02 -----------------------------------------------------------------------------------------------------------


def softmax_at(scores: Any, temperature: float) -> Any:
    scores = np.asarray(scores, np.float64)
    if temperature == 0:
        return np.eye(len(scores))[scores.argmax()]
    powers = np.exp((scores - scores.max()) / temperature)
    return powers / powers.sum()


def naive_softmax(scores: Any, temperature: float) -> Any:
    powers = np.exp(scores / temperature)
    return powers / powers.sum()


async def greedy(model: Any, ids: list[int], count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count and not (found and found[-1] in model.tokenizer.eos_ids):
        found.append(int((await model.logits([*ids, *found]))[-1].argmax()))
    return found


async def greedy_without_end(model: Any, ids: list[int], count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        found.append(int((await model.logits([*ids, *found]))[-1].argmax()))
    return found


async def greedy_in_place(model: Any, ids: list[int], count: int) -> list[int]:
    ids += await greedy(model, ids, count)
    return ids


async def greedy_least(model: Any, ids: list[int], count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        found.append(int((await model.logits([*ids, *found]))[-1].argmin()))
    return found


async def greedy_whole(model: Any, ids: list[int], count: int) -> list[int]:
    return ids + await greedy(model, ids, count)


async def greedy_without_last(model: Any, ids: list[int], count: int) -> list[int]:
    return [id_ for id_ in await greedy(model, ids, count) if id_ not in model.tokenizer.eos_ids]


def first_beyond(probabilities: Any, u: float) -> int:
    return int(np.searchsorted(np.cumsum(probabilities), u, side="right"))


RIGHT["2.1"] = [softmax_at]
WRONG["2.1"] = [
    (naive_softmax, "NaN"),
    (lambda s, t: softmax_at(s, 1.0), "largest probability"),
    (lambda s, t: softmax_at(s, t) * 2, "sum"),
    (lambda s, t: softmax_at(s, t) if t else np.full(len(s), 1 / len(s)), "temperature 0"),
    (lambda s, t: float(np.max(s)), "shape"),
]
RIGHT["2.2"] = [first_beyond]
WRONG["2.2"] = [
    (lambda p, u: int(np.argmax(p)), "should be"),
    (lambda p, u: int(np.searchsorted(np.cumsum(p), u, side="left")), "should be"),
    (lambda p, u: 0.5, "whole number"),
]
RIGHT["2.3"] = [greedy]
WRONG["2.3"] = [
    (greedy_without_end, "goes on"),
    (greedy_in_place, "changed the list"),
    (greedy_whole, "Only the new ids"),
    (greedy_least, "engine chose"),
    (greedy_without_last, "end token included"),
    (lambda model, ids, count: [1, 2], "async def"),
]

# --- 06 -----------------------------------------------------------------------------------------------------------


def kv_bytes(config: dict[str, Any]) -> int:
    size = 4 if config["torch_dtype"] == "float32" else 2
    return int(2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"] * size)


def kv_bytes_of_query_heads(config: dict[str, Any]) -> int:
    return kv_bytes({**config, "num_key_value_heads": config["num_attention_heads"]})


def remembered(first: list[int], second: list[int], block: int) -> int:
    common = 0
    while common < min(len(first), len(second)) and first[common] == second[common]:
        common += 1
    return min(common, len(second) - 1) // block * block


def remembered_loosely(first: list[int], second: list[int], block: int) -> int:
    return sum(one == other for one, other in zip(first, second, strict=False)) // block * block


RIGHT["6.1"] = [kv_bytes]
WRONG["6.1"] = [
    (kv_bytes_of_query_heads, "1536"),
    (lambda config: kv_bytes(config) // 2, "1536"),
    (lambda config: 1536, "should be"),
    (lambda config: "1536", "whole number"),
]
RIGHT["6.2"] = [lambda p, n: (n * p + n * (n - 1) / 2) / (p + n - 1)]
WRONG["6.2"] = [
    (lambda p, n: n * (p + n) / 2 / (p + n - 1), "should be"),
    (lambda p, n: n, "should be"),
    (lambda p, n: float("nan"), "finite"),
]
RIGHT["6.3"] = [remembered]
WRONG["6.3"] = [
    (lambda a, b, k: 0, "engine remembered"),
    (remembered_loosely, "engine remembered"),
    (lambda a, b, k: remembered(a, b, 1), "engine remembered"),
]

# --- 08 -----------------------------------------------------------------------------------------------------------


async def first_answer(model: Any, prompts: list[str]) -> int:
    async with model.as_completed(prompts) as answers:
        async for index, _ in answers:
            return int(index)
    return -1


async def first_of_all(model: Any, prompts: list[str]) -> int:
    """Waits for all of them."""
    order = [index async for index, _ in model.as_completed(prompts)]
    return int(order[0])


async def first_prompt(model: Any, prompts: list[str]) -> int:
    await anyio.sleep(0)
    return -1


async def within(model: Any, prompt: str, seconds: float) -> str:
    stream = model.stream(prompt, max_new_tokens=None, ignore_eos=True)
    with anyio.move_on_after(seconds):
        async for _ in stream:
            pass
    stream.cancel()
    return str(stream.text)


async def within_by_itself(model: Any, prompt: str, seconds: float) -> str:
    answer = await model.generate(prompt, max_new_tokens=None, ignore_eos=True, max_time_s=seconds)
    return str(answer.text)


async def within_and_lost(model: Any, prompt: str, seconds: float) -> str:
    with anyio.move_on_after(seconds):
        return str((await model.generate(prompt, max_new_tokens=None, ignore_eos=True)).text)
    return ""


async def within_a_moment(model: Any, prompt: str, seconds: float) -> str:
    return str((await model.generate(prompt, max_new_tokens=3)).text)


async def polite_batch(model: Any, prompts: list[str], most: int) -> list[str]:
    limit, texts = anyio.Semaphore(most), [""] * len(prompts)

    async def one(index: int) -> None:
        async with limit:
            texts[index] = (await model.generate(prompts[index])).text

    async with anyio.create_task_group() as group:
        for index in range(len(prompts)):
            group.start_soon(one, index)
    return texts


async def in_portions(model: Any, prompts: list[str], most: int) -> list[str]:
    found: list[str] = []
    for start in range(0, len(prompts), most):
        found += await polite_batch(model, prompts[start : start + most], most)
    return found


async def impolite_batch(model: Any, prompts: list[str], most: int) -> list[str]:
    return await polite_batch(model, prompts, len(prompts))


async def in_order_of_arrival(model: Any, prompts: list[str], most: int) -> list[str]:
    return sorted(await polite_batch(model, prompts, most), reverse=True)


RIGHT["8.1"] = [first_answer]
WRONG["8.1"] = [(first_of_all, "told to their end"), (first_prompt, "answered first"), (lambda m, p: 0, "async def")]
RIGHT["8.2"] = [within, within_by_itself]
WRONG["8.2"] = [(within_and_lost, "empty"), (within_a_moment, "was back after")]
RIGHT["8.3"] = [polite_batch]
WRONG["8.3"] = [(in_portions, "fewer than"), (impolite_batch, "at most"), (in_order_of_arrival, "order")]

# --- 09 -----------------------------------------------------------------------------------------------------------

Messages = list[dict[str, str]]


def render(messages: Messages) -> str:
    said = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return f"{said}<|im_start|>assistant\n"


def shorten(messages: Messages, most: int, count: Callable[[Messages], int]) -> Messages:
    cut = 1 if messages[0]["role"] == "system" else 0
    system, rest = messages[:cut], messages[cut:]
    while len(rest) > 1 and (count(system + rest) > most or rest[0]["role"] != "user"):
        rest = rest[1:]
    return system + rest


def shorten_anywhere(messages: Messages, most: int, count: Callable[[Messages], int]) -> Messages:
    cut = 1 if messages[0]["role"] == "system" else 0
    system, rest = messages[:cut], messages[cut:]
    while len(rest) > 1 and count(system + rest) > most:
        rest = rest[1:]
    return system + rest


def shorten_blindly(messages: Messages, most: int, count: Callable[[Messages], int]) -> Messages:
    while len(messages) > 1 and (count(messages) > most or messages[0]["role"] != "user"):
        messages = messages[1:]
    return messages


def two_names(*, twice: bool = True) -> fastllm.BlockingChat:
    chat = fastllm.BlockingChat(fastllm.load("demo"), temperature=0, max_new_tokens=30)
    chat.send("My name is Mia.").result()
    chat.send("What is my name?").result()
    if twice:
        chat.edit(0, "My name is Grace.").result()
        chat.send("What is my name?").result()
    return chat


RIGHT["9.1"] = [render]
WRONG["9.1"] = [
    (lambda messages: render(messages).removesuffix("<|im_start|>assistant\n"), "differs at character"),
    (lambda messages: render(messages).replace("<|im_end|>\n", "<|im_end|>"), "differs at character"),
    (lambda messages: [1, 2], "list"),
]
RIGHT["9.2"] = [shorten]
WRONG["9.2"] = [
    (shorten_anywhere, "begins with an answer"),
    (shorten_blindly, "system message"),
    (lambda messages, most, count: messages, "you kept"),
    (lambda messages, most, count: messages[:-1], "last message"),
    (lambda messages, most, count: messages.clear(), "changed the list"),
]
RIGHT["9.3"] = [two_names]  # a factory: made when the test runs
WRONG["9.3"] = [(lambda: two_names(twice=False), "One branch is missing"), ("Ada", "fastllm.Chat")]

# --- 12 -----------------------------------------------------------------------------------------------------------


def interval(samples: Any) -> tuple[float, float]:
    dice = np.random.default_rng(1)
    medians = np.median(dice.choice(samples, (2000, len(samples))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


def faster(a: Any, b: Any) -> str:
    (a_low, a_high), (b_low, b_high) = interval(a), interval(b)
    return "a" if a_high < b_low else "b" if b_high < a_low else "unclear"


RIGHT["12.1"] = [faster]
WRONG["12.1"] = [
    (lambda a, b: "a" if np.mean(a) < np.mean(b) else "b", "should be"),
    (lambda a, b: "a" if np.median(a) < np.median(b) else "b", "unclear"),
    (lambda a, b: "unclear", "should be"),
    (lambda a, b: a, "gave"),
]
RIGHT["12.2"] = [lambda band, w, kv, context, batch: batch * band / (w + batch * context * kv)]
WRONG["12.2"] = [
    (lambda band, w, kv, context, batch: band / (w + batch * context * kv), "should be"),
    (lambda band, w, kv, context, batch: batch * band / (w + context * kv), "should be"),
]
RIGHT["12.3"] = ["be", "EB", "b, e"]
WRONG["12.3"] = [("b", "not it"), ("abcde", "All five"), ("bce", "not it"), (2, "quotes")]

# --- A1 -----------------------------------------------------------------------------------------------------------


def parallel(formula: Callable[[Any, Any, Any], Any]) -> type[nn.Module]:
    """A ParallelLayer that computes something."""

    class ParallelLayer(nn.Module):
        def __init__(self, norm: Any, attention: Any, mlp: Any) -> None:
            self.norm, self.attention, self.mlp = norm, attention, mlp

        def forward(self, x: Any, step: Any) -> Any:
            return formula(self, x, step)

    return ParallelLayer


def weights(config: dict[str, Any]) -> int:
    hidden, inner, dim = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    attention = 2 * hidden * heads * dim + 2 * hidden * kv_heads * dim + 2 * dim
    layer = attention + 3 * hidden * inner + 2 * hidden
    return int(config["vocab_size"] * hidden + config["num_hidden_layers"] * layer + hidden)


class Bigram(nn.Model):
    base_prefix = ""

    def __init__(self, config: nn.Config) -> None:
        super().__init__(config)
        hidden, vocab = config.integer("hidden_size"), config.integer("vocab_size")
        self.embed, self.head = nn.Embedding(vocab, hidden), nn.Linear(hidden, vocab)

    def forward(self, ids: Any, step: Any) -> Any:
        return self.head(self.embed(ids))


class DoubledBigram(Bigram):
    def forward(self, ids: Any, step: Any) -> Any:
        return self.head(self.embed(ids)) * 2.0


class BigramWithBias(Bigram):
    def __init__(self, config: nn.Config) -> None:
        super().__init__(config)
        self.head = nn.Linear(config.integer("hidden_size"), config.integer("vocab_size"), bias=True)


RIGHT["A1.1"] = [parallel(lambda s, x, step: x + s.attention(s.norm(x), step) + s.mlp(s.norm(x)))]
WRONG["A1.1"] = [
    (parallel(lambda s, x, step: s.attention(s.norm(x), step) + s.mlp(s.norm(x))), "x + is missing"),
    (parallel(lambda s, x, step: x + s.attention(s.norm(x), step)), "mlp is missing"),
    (parallel(lambda s, x, step: x + s.attention(x, step) + s.mlp(x)), "read norm(x)"),
    (parallel(lambda s, x, step: x + s.attention(s.norm(x), None) + s.mlp(s.norm(x))), "the step"),
    (parallel(lambda s, x, step: (h := x + s.attention(s.norm(x), step)) + s.mlp(s.norm(h))), "what attention made"),
    (parallel(lambda s, x, step: x + s.attention(s.norm(x), step) + s.mlp(s.norm(x)) * 2), "off by"),
    (parallel, "class itself"),
]
RIGHT["A1.2"] = [weights]
WRONG["A1.2"] = [
    (lambda config: weights(config) + config["vocab_size"] * config["hidden_size"], "tied"),
    (lambda config: weights(config) - config["hidden_size"], "-256"),
    (lambda config: 3_870_336, "should be"),
]
RIGHT["A1.3"] = [Bigram]
WRONG["A1.3"] = [
    (DoubledBigram, "off by"),
    (BigramWithBias, "should have the weights"),
    (Bigram(nn.Config({"vocab_size": 5, "hidden_size": 2})), "class itself"),
]

# --- 00 -----------------------------------------------------------------------------------------------------------


def demo_answer(prompt: str) -> fastllm.Completion:
    with fastllm.load("demo") as model:
        return model.blocking.generate(prompt, temperature=0, logprobs=1)


async def until(model: Any, prompt: str, word: str) -> str:
    text = ""
    async for token in model.stream(prompt, temperature=0):
        text += token.text
        if word in text:
            return text[: text.find(word) + len(word)]
    return text


async def until_the_end(model: Any, prompt: str, word: str) -> str:
    text = (await model.generate(prompt, temperature=0)).text
    return text[: text.find(word) + len(word)] if word in text else text


async def until_a_token(model: Any, prompt: str, word: str) -> str:
    text = ""
    async for token in model.stream(prompt, temperature=0):
        text += token.text
        if token.text.strip() == word:
            break
    return text


RIGHT["0.1"] = [lambda: len(demo_answer("Why is the sky blue?").tokens)]
WRONG["0.1"] = [
    (lambda: len(demo_answer("Why is the sky blue?").tokens) - 1, "One more"),
    (3, "too few"),
    (400, "too many"),
    ("40", "whole number"),
]
RIGHT["0.2"] = [lambda: min(demo_answer("Hello! Who are you?").tokens, key=lambda token: token.logprob or 0.0).text]
WRONG["0.2"] = [
    (lambda: min(demo_answer("Hello! Who are you?").tokens, key=lambda t: t.logprob or 0.0).text.strip(), "space"),
    (lambda: max(demo_answer("Hello! Who are you?").tokens[:5], key=lambda t: t.logprob or -9.0).text, "surer"),
    ("potato", "no such token"),
    (7, "quotes"),
]
RIGHT["0.3"] = [until]
WRONG["0.3"] = [(until_the_end, "whole story"), (until_a_token, "instead of"), (lambda m, p, w: "x", "async def")]

# --- 03 -----------------------------------------------------------------------------------------------------------


def top_p(probabilities: Any, p: float) -> Any:
    order = np.argsort(probabilities)[::-1]
    before = np.cumsum(probabilities[order]) - probabilities[order]
    kept = np.where(before < p, probabilities[order], 0)
    found = np.zeros_like(probabilities)
    found[order] = kept / kept.sum()
    return found


def top_p_too_short(probabilities: Any, p: float) -> Any:
    order = np.argsort(probabilities)[::-1]
    kept = np.where(np.cumsum(probabilities[order]) <= p, probabilities[order], 0)
    found = np.zeros_like(probabilities)
    found[order] = kept / max(kept.sum(), 1e-30)
    return found


def min_p(probabilities: Any, share: float) -> Any:
    kept = np.where(probabilities >= share * probabilities.max(), probabilities, 0)
    return kept / kept.sum()


def min_p_in_place(probabilities: Any, share: float) -> Any:
    probabilities[probabilities < share * probabilities.max()] = 0
    return probabilities / probabilities.sum()


RIGHT["3.1"] = [top_p]
WRONG["3.1"] = [
    (top_p_too_short, "should be kept"),
    (lambda q, p: top_p(q, p) * 0.5, "sum"),
    (lambda q, p: top_p(q, p)[::-1], "not which"),
    (lambda q, p: q, "should be kept"),
    (lambda q, p: q[:1], "shape"),
]
RIGHT["3.2"] = [min_p]
WRONG["3.2"] = [
    (lambda q, share: np.where(q >= share, q, 0), "should be kept"),
    (min_p_in_place, "copy"),
    (lambda q, share: np.where(q >= share * q.max(), q, 0), "sum"),
]
RIGHT["3.3"] = [{"temperature": 1.0, "min_p": 0.2}, {"top_p": 0.9}]
WRONG["3.3"] = [
    ({"temperature": 1.0, "top_k": 1}, "garden has only 1"),
    ({"temperature": 1.0, "top_k": 14}, "poem can still"),
    ({"temperature": 0.01}, "at least 1"),
    ({"topp": 0.9}, "none of the four"),
    (0.9, "dict"),
]

# --- 04 -----------------------------------------------------------------------------------------------------------


def windowed(q: Any, k: Any, v: Any, window: int) -> Any:
    share = q.shape[1] // k.shape[1]
    k, v = k.repeat(share, axis=1), v.repeat(share, axis=1)
    scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
    place = np.arange(len(q))
    distance = place[:, None] - place[None, :]
    scores[:, (distance < 0) | (distance >= window)] = -np.inf
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("hqk,khd->qhd", powers / powers.sum(axis=-1, keepdims=True), v)


def rope_neighbours(x: Any, positions: Any, base: float, *, sign: float = 1.0) -> Any:
    half = x.shape[-1] // 2
    angles = sign * positions[:, None] * base ** (-np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 1::2] * cos + x[..., 0::2] * sin
    return out


def rope_apart(x: Any, positions: Any, base: float) -> Any:
    turned = rope_neighbours(x, positions, base)
    return np.concatenate([turned[..., 0::2], turned[..., 1::2]], axis=-1)


def step(q: Any, keys: Any, values: Any) -> Any:
    share = q.shape[0] // keys.shape[1]
    scores = np.einsum("hd,thd->ht", q, keys.repeat(share, axis=1)) / np.sqrt(q.shape[-1])
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.einsum("ht,thd->hd", powers / powers.sum(axis=-1, keepdims=True), values.repeat(share, axis=1))


RIGHT["4.1"] = [windowed]
WRONG["4.1"] = [
    (lambda q, k, v, window: windowed(q, k, v, 10**6), "sees all"),
    (lambda q, k, v, window: windowed(q, k, v, window + 1), "too many"),
    (lambda q, k, v, window: (None, windowed(q, k, v, window)), "without the pattern"),
    (lambda q, k, v, window: windowed(q * 2, k, v, window), "off by"),
    (lambda q, k, v, window: q[:1], "shape"),
]
RIGHT["4.2"] = [rope_neighbours]
WRONG["4.2"] = [
    (lambda x, positions, base: rope_neighbours(x, positions, base, sign=-1), "other way"),
    (rope_apart, "side by side"),
    (lambda x, positions, base: x, "off by"),
]
RIGHT["4.3"] = [step]
WRONG["4.3"] = [
    (lambda q, keys, values: step(q, keys[:-1], values[:-1]) if len(keys) > 1 else step(q, keys, values), "off by"),
    (lambda q, keys, values: values[-1], "shape"),
    (lambda q, keys, values: step(q * q.shape[-1] ** 0.5, keys, values), "off by"),
]


# --- 05 -----------------------------------------------------------------------------------------------------------


def looks_back(pattern: Any, distance: int) -> Any:
    return np.diagonal(pattern, offset=-distance, axis1=1, axis2=2).mean(axis=-1)


def settled(scores: Any) -> int:
    best = scores.argmax(axis=-1)
    layer = len(best) - 1
    while layer > 0 and best[layer - 1] == best[-1]:
        layer -= 1
    return layer


RIGHT["5.1"] = [looks_back]
WRONG["5.1"] = [
    (lambda p, d: np.diagonal(p, offset=-d, axis1=1, axis2=2).sum(axis=-1), "mean is asked"),
    (lambda p, d: np.diagonal(p, offset=-d, axis1=1, axis2=2).sum(axis=-1) / p.shape[1], "so far back"),
    (lambda p, d: np.diagonal(p, offset=d, axis1=1, axis2=2).mean(axis=-1), "above"),
    (lambda p, d: np.diagonal(p, offset=-d, axis1=1, axis2=2).mean(), "shape"),
]
RIGHT["5.2"] = [(1, 3), np.array([1, 3])]
WRONG["5.2"] = [((3, 1), "Head first"), ((0, 0), "Another one"), ((6, 0), "6 layers"), (3, "pair")]
RIGHT["5.3"] = [settled]
WRONG["5.3"] = [
    (lambda scores: int((scores.argmax(axis=-1) == scores[-1].argmax()).argmax()), "lost its place"),
    (lambda scores: len(scores) - 1, "settled from"),
    (lambda scores: None, "whole number"),
]
