"""The corpus of the demo model: the held-out guarantee, right answers, and ChatML as transformers renders it."""

from __future__ import annotations

import json
import re
from itertools import islice
from pathlib import Path
from random import Random

import demo_package  # noqa: F401  (makes demo_model importable)
import pytest

from demo_model import evaluate
from demo_model.corpus import arithmetic, chats, lists, stories, tools, unknown
from demo_model.corpus.base import IM_END, Check, number_words, split_of, vary_line
from demo_model.corpus.flagships import FLAGSHIPS
from demo_model.corpus.mixture import documents

DEMO = Path(__file__).resolve().parents[2] / "fastllm" / "demo"
EQUATION = re.compile(r"(?<![\d.])(\d{1,2}) ?([+-]) ?(\d{1,2})(?![\d.])(?! ?[*/x])")
WORD_EQUATION = re.compile(r"\b([a-z]+(?:-[a-z]+)?) (plus|minus) ([a-z]+(?:-[a-z]+)?)\b")
NUMBERS = {number_words(n): n for n in range(100)}


@pytest.fixture(scope="module")
def training_texts() -> list[str]:
    return [document.text for document in islice(documents(4711), 6000)]


def test_equal_seeds_give_equal_streams() -> None:
    first, again, other = ([d.text for d in islice(documents(seed), 300)] for seed in (5, 5, 6))
    assert first == again
    assert first != other


def test_no_held_out_pair_is_in_the_training_text(training_texts: list[str]) -> None:
    seen = 0
    for text in training_texts:
        for a, sign, b in EQUATION.findall(text):
            seen += 1
            assert arithmetic.pair_split(sign, int(a), int(b)) == "train", text
        for a, word, b in WORD_EQUATION.findall(text.lower()):
            if a in NUMBERS and b in NUMBERS:
                seen += 1
                assert arithmetic.pair_split("+" if word == "plus" else "-", NUMBERS[a], NUMBERS[b]) == "train", text
    assert seen > 400


def test_no_held_out_list_is_in_the_training_text(training_texts: list[str]) -> None:
    ask = re.compile(
        r"^(?:Sort|Reverse|Copy|Repeat) (?:this list: |the list |these numbers: |)([\d, \[\]]+)$", re.IGNORECASE
    )
    seen = 0
    for text in training_texts:
        for user in re.findall(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", text, flags=re.DOTALL):
            found = ask.match(user)
            items = re.findall(r"\d+", found[1]) if found else []
            if len(items) > 1:
                seen += 1
                assert split_of("list", lists.canonical(items), percent=8) == "train", user
    assert seen > 40


@pytest.mark.parametrize("skill", ["story_questions", "sums", "lists", "json", "tools", "common", "story_telling"])
def test_no_evaluation_prompt_is_in_the_training_text(skill: str, training_texts: list[str]) -> None:
    everything = "\n".join(training_texts)
    asked = evaluate.items(skill, 100)
    assert len(asked) == 100
    for prompt, _ in asked:
        last = prompt.rsplit("<|im_start|>user\n", 1)[1].split(IM_END)[0]
        if skill == "story_questions":  # the question may be common; the story must not be known
            told = max(prompt.split("\n"), key=len)
            assert told[:200] not in everything
        elif len(last) > 40 or skill in ("json", "tools"):
            assert f"user\n{last}{IM_END}" not in everything


def test_evaluation_items_are_the_same_every_time_and_all_different() -> None:
    first, again = evaluate.items("sums", 50), evaluate.items("sums", 50)
    assert first == again
    assert len({prompt for prompt, _ in first}) == 50
    assert arithmetic.pair_split("+", 17, 25) == arithmetic.pair_split("+", 25, 17)


def test_sums_are_right() -> None:
    rng = Random(1)
    for _ in range(2000):
        turn = arithmetic.turn(rng, "train")
        match = EQUATION.search(turn.answer)
        if match:
            a, sign, b = int(match[1]), match[2], int(match[3])
            assert int(turn.answer.split("= ")[1].split(",")[0]) == (a + b if sign == "+" else a - b)
        assert turn.check.score(turn.answer)
        assert not turn.check.score(turn.answer + "0")


def test_lists_are_right() -> None:
    rng = Random(2)
    for _ in range(1000):
        turn = lists.turn(rng, "held_out")
        out = re.findall(r"-?\d+", turn.answer)
        if turn.user.startswith("Sort these numbers: "):
            assert [int(x) for x in out] == sorted(int(x) for x in re.findall(r"\d+", turn.user))
        if turn.user.startswith("Reverse this list: "):
            asked = re.findall(r'[^\s,"\[\]]+', turn.user.removeprefix("Reverse this list: ").replace(" and ", ", "))
            assert re.findall(r'[^\s,"\[\]]+', turn.answer) == asked[::-1]


def test_a_story_states_what_its_questions_ask() -> None:
    rng = Random(3)
    told = [stories.tell(rng, "train") for _ in range(500)]
    for story in [*told, *(stories._signature(topic) for topic in FLAGSHIPS)]:
        for _ in range(6):
            turn = stories.question_turn(rng, story)
            assert turn.check.score(turn.answer), turn
            for fact in turn.check.contains:
                assert fact in ("yes", "no,") or fact.casefold() in story.text.casefold(), (fact, turn, story.text)


def test_right_answers_score_and_wrong_ones_do_not() -> None:
    assert Check(contains=("red",), rejects=("blue",)).score("The kite was Red.")
    assert not Check(contains=("red",), rejects=("blue",)).score("The kite was red and blue.")
    assert not Check(equals=("42",)).score("17 + 25 = 42")
    assert Check(json_value={"a": 1}, is_json=True).score(' {"a": 1}')
    assert not Check(json_value={"a": 1}, is_json=True).score('{"a": 1')
    call = tools.call_text("get_weather", {"city": "Oslo"})
    right = Check(tool_call={"name": "get_weather", "arguments": {"city": "Oslo"}})
    assert right.score(call)
    assert not right.score(call.replace("Oslo", "Rome"))
    assert not right.score(f"Sure! {call}")
    rng = Random(4)
    answers = {unknown.turn(rng).answer for _ in range(300)}
    assert len(answers) == 5


def test_alternatives_are_split_outside_brackets_only() -> None:
    rng = Random(5)
    made = {vary_line(rng, "a [b|c]|d") for _ in range(200)}
    assert made == {"a b", "a c", "d"}


def test_the_shipped_template_renders_what_training_saw() -> None:
    pytest.importorskip("transformers")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(DEMO)
    rng = Random(6)
    for number in range(120):
        chat = tools.chat(rng, "train") if number % 2 else chats.mixed_chat(rng, "train")
        messages = [{"role": m.role, "content": m.content} for m in chat.messages]
        for generate, want in ((True, chat.prompt()), (False, chat.document("").text)):
            got = tokenizer.apply_chat_template(
                messages,
                tools=[dict(tool) for tool in chat.tools] or None,
                add_generation_prompt=generate,
                tokenize=False,
            )
            assert got == want
    call = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
    told = tokenizer.apply_chat_template([{"role": "assistant", "content": "", "tool_calls": [call]}], tokenize=False)
    assert told == f"<|im_start|>assistant\n{tools.call_text('get_weather', {'city': 'Oslo'})}<|im_end|>\n"


def test_the_shipped_files_are_small_and_agree() -> None:
    from tokenizers import Tokenizer

    assert sum(path.stat().st_size for path in DEMO.iterdir()) <= 8_000_000
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    config = json.loads((DEMO / "config.json").read_text())
    assert config["vocab_size"] == tokenizer.get_vocab_size() == 2048
    assert [tokenizer.token_to_id(t) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")] == [0, 1, 2]
    assert json.loads((DEMO / "generation_config.json").read_text())["eos_token_id"] == [2, 0]
    for text in ("17 + 25 = 42", "你好！", 'He said: "naïve" 🙂\n\n  x', "<tool_call>"):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    assert len(tokenizer.encode("1234").ids) == 4


def test_packed_rows_hold_whole_documents() -> None:
    from tokenizers import Tokenizer

    from demo_model.packing import ROW, encoded_documents, packed_rows

    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    known = {tuple(ids) for ids, _ in islice(encoded_documents(tokenizer, 11), 2000)}
    block = next(packed_rows(tokenizer, 11, rows=8))
    assert block.tokens.shape == block.weights.shape == block.owners.shape == (8, ROW)
    for tokens, owners in zip(block.tokens, block.owners, strict=True):
        assert (owners > 0).mean() > 0.9
        for number in range(1, owners.max() + 1):
            assert tuple(int(t) for t in tokens[owners == number]) in known


def test_only_answers_and_plain_text_are_trained_on_fully() -> None:
    from tokenizers import Tokenizer

    from demo_model.packing import WEIGHT_ONE, encoded_documents

    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    for ids, weights in islice(encoded_documents(tokenizer, 12), 400):
        text = tokenizer.decode(ids, skip_special_tokens=False)
        if text.startswith("<|im_start|>"):
            full = tokenizer.decode(
                [i for i, weight in zip(ids, weights, strict=True) if weight == WEIGHT_ONE], skip_special_tokens=False
            )
            said = re.findall(r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)", text, flags=re.DOTALL)
            assert full == "".join(said)
        assert weights[-1] == WEIGHT_ONE or text.endswith("\n")


def test_the_network_is_qwen3_as_transformers_has_it(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from demo_model.network import Network, Shape, save_model
    from demo_model.train import dense_attention

    torch.manual_seed(0)
    shape = Shape(vocab=96, hidden=48, layers=2, heads=6, kv_heads=2, head_dim=16, intermediate=80)
    network = Network(shape)
    state = {name: (p + 0.1 * torch.randn_like(p)).bfloat16().float() for name, p in network.named_parameters()}
    network.load_state_dict(state)
    save_model(state, shape, tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert type(theirs).__name__ == "Qwen3ForCausalLM"
    ids = torch.randint(0, 96, (2, 33))
    with torch.no_grad():
        ours, reference = network(ids, dense_attention(torch.ones_like(ids))), theirs(ids).logits
        assert (ours - reference).abs().max() < 1e-4 * reference.std()
        owners = torch.tensor([[1] * 13 + [2] * 20] * 2)  # the second document must not see the first
        apart = network(ids, dense_attention(owners))[:, 13:]
        alone = theirs(ids[:, 13:]).logits
    assert (apart - alone).abs().max() < 1e-4 * reference.std()
