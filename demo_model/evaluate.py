"""Scores the demo model on held-out items, with any engine.

``python -m demo_model.evaluate --engine fastllm`` (or ``transformers``) prints one line per skill. The items are the
same on every run, and none of them is in the training text.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

from demo_model.corpus import (
    arithmetic,
    calendar_facts,
    chats,
    chinese,
    common,
    json_objects,
    lists,
    stories,
    system_prompts,
    tools,
    unknown,
)
from demo_model.corpus.base import Chat, Check, Message, Turn, chat_of

Generate = Callable[[list[str], int], list[str]]
Item = tuple[str, Check]  # the prompt as the engine gets it, special tokens spelt out, and how to score the answer

TARGETS = {"story_questions": 95.0, "sums": 95.0, "lists": 95.0, "json_valid": 99.0, "tools": 98.0}
DEMO = Path(__file__).resolve().parent.parent / "fastllm" / "demo"
_LENGTHS = {
    "story_telling": 256,
    "chinese": 220,
    "common": 120,
    "talk": 120,
    "unknown": 80,
    "json": 120,
    "system_prompts": 140,
}


@dataclass(frozen=True, slots=True)
class Result:
    """One line of the table.

    Attributes:
        skill: what was asked for.
        right: how many answers were right.
        asked: how many items there are.
        misses: some (end of prompt, answer) pairs that were wrong.
    """

    skill: str
    right: int
    asked: int
    misses: tuple[tuple[str, str], ...]

    @property
    def percent(self) -> float:
        """Right answers of a hundred."""
        return 100.0 * self.right / self.asked


def _story_item(rng: Random) -> Item:
    if rng.random() < 0.5:
        turn = stories.question_about_given_story(rng, "held_out")
        return chat_of([turn]).messages[0].content, turn.check
    chat, last = chats.story_chat(rng, "held_out")
    if last.skill != "story_questions":
        return _story_item(rng)
    return Chat(chat.messages[:-1]).prompt(), last.check


def _story_prompt(rng: Random) -> Item:
    text, check = _story_item(rng)
    return (text, check) if text.startswith("<|im_start|>") else (Chat((Message("user", text),)).prompt(), check)


def _of_turn(make: Callable[[Random], Turn]) -> Callable[[Random], Item]:
    def item(rng: Random) -> Item:
        turn = make(rng)
        return Chat((Message("user", turn.user),)).prompt(), turn.check

    return item


def _raw_sum_item(rng: Random) -> Item:
    turn = arithmetic.turn(rng, "held_out")
    rest = turn.answer.split("= ")[-1] if turn.user.rstrip().endswith("=") else turn.answer
    rest = rest.removesuffix(".")
    return turn.user, Check(contains=(rest.split(" is ")[-1],))


def _raw_of_turn(make: Callable[[Random], Turn]) -> Callable[[Random], Item]:
    def item(rng: Random) -> Item:
        turn = make(rng)
        return turn.user, turn.check

    return item


def _styled_item(rng: Random) -> Item:
    system, turns = system_prompts.styled(rng, "held_out")
    return Chat((Message("system", system), Message("user", turns[0].user))).prompt(), turns[0].check


def _tool_item(rng: Random) -> Item:
    turn = tools.call_turn(rng, "held_out")
    return Chat((Message("user", turn.user),), tools.DECLARED).prompt(), turn.check


def _tool_answer_item(rng: Random) -> Item:
    turn = tools.call_turn(rng, "held_out")
    returned, said = tools.result_of(rng, turn.check.tool_call or {})
    messages = (Message("user", turn.user), Message("assistant", turn.answer), Message("tool", returned))
    return Chat(messages, tools.DECLARED).prompt(), Check(equals=(said,))


def _memory_item(rng: Random) -> Item:
    told, asked = chats.memory_turns(rng)
    between = [chats.any_turn(rng, "held_out") for _ in range(rng.randint(0, 2))]
    return Chat((*chat_of([told, *between]).messages, Message("user", asked.user))).prompt(), asked.check


def _telling_item(rng: Random) -> Item:
    turn, _ = stories.request_turn(rng, "held_out")
    return Chat((Message("user", turn.user),)).prompt(), turn.check


SKILLS: dict[str, Callable[[Random], Item]] = {
    "story_questions": _story_prompt,
    "sums": _of_turn(lambda rng: arithmetic.turn(rng, "held_out")),
    "sums_raw": _raw_sum_item,
    "lists": _of_turn(lambda rng: lists.turn(rng, "held_out")),
    "json": _of_turn(lambda rng: json_objects.turn(rng, "held_out")),
    "tools": _tool_item,
    "tool_answers": _tool_answer_item,
    "calendar": _of_turn(calendar_facts.turn),
    "common": _of_turn(lambda rng: common.turn(rng, "held_out")),
    "common_raw": _raw_of_turn(lambda rng: common.turn(rng, "held_out")),
    "talk": _of_turn(common.talk_turn),
    "memory": _memory_item,
    "chinese": _of_turn(lambda rng: chinese.turn(rng, "held_out")),
    "system_prompts": _styled_item,
    "unknown": _of_turn(unknown.turn),
    "story_telling": _telling_item,
}


def items(skill: str, count: int) -> list[Item]:
    """The first items of a skill, the same on every run; no prompt comes twice."""
    rng = Random(f"held out {skill}")
    chosen: dict[str, Check] = {}
    for _ in range(50 * count):
        if len(chosen) == count:
            break
        prompt, check = SKILLS[skill](rng)
        chosen.setdefault(prompt, check)
    return list(chosen.items())


def evaluate(generate: Generate, *, count: int = 300, skills: Sequence[str] = tuple(SKILLS)) -> list[Result]:
    """Asks every item and scores the answers.

    Args:
        generate: prompts and the most tokens to make -> the new text of each, without special tokens, greedily.
        count: items per skill.
        skills: which skills to ask.
    """
    results = []
    for skill in skills:
        asked = items(skill, count)
        answers = generate([prompt for prompt, _ in asked], _LENGTHS.get(skill, 64))
        scored = [(prompt, check, answer) for (prompt, check), answer in zip(asked, answers, strict=True)]
        misses = tuple((prompt[-160:], answer) for prompt, check, answer in scored if not check.score(answer))
        if skill == "json":
            valid = sum(_is_json(answer) for answer in answers)
            broken = tuple((prompt[-160:], answer) for prompt, _, answer in scored if not _is_json(answer))
            results.append(Result("json_valid", valid, len(asked), broken))
        results.append(Result(skill, len(asked) - len(misses), len(asked), misses))
    return results


def _is_json(text: str) -> bool:
    try:
        json.loads(text.strip())
    except ValueError:
        return False
    return True


def table(results: Sequence[Result]) -> str:
    """The results as a markdown table."""
    lines = ["| skill | right | of | % | target |", "| --- | ---: | ---: | ---: | ---: |"]
    for result in results:
        target = f"{TARGETS[result.skill]:.0f}" if result.skill in TARGETS else ""
        lines.append(f"| {result.skill} | {result.right} | {result.asked} | {result.percent:.1f} | {target} |")
    return "\n".join(lines)


def transformers_generate(path: Path, *, device: str = "cpu", batch: int = 64, temperature: float = 0.0) -> Generate:
    """Generation with transformers in float32 on the stored weights, greedy unless ``temperature`` is above 0."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)

    model.to(device).eval()
    sampling: dict[str, Any] = {"do_sample": False}
    if temperature > 0:
        sampling = {"do_sample": True, "temperature": temperature, "top_p": 0.95, "top_k": 0}

    def generate(prompts: list[str], max_new_tokens: int) -> list[str]:
        out = [""] * len(prompts)
        encoded = [tokenizer.encode(prompt, add_special_tokens=False).ids for prompt in prompts]
        order = sorted(range(len(prompts)), key=lambda i: len(encoded[i]))
        for at in range(0, len(order), batch):
            chosen = order[at : at + batch]
            width = max(len(encoded[i]) for i in chosen)
            ids = torch.tensor([[0] * (width - len(encoded[i])) + encoded[i] for i in chosen], device=device)
            mask = torch.tensor(
                [[0] * (width - len(encoded[i])) + [1] * len(encoded[i]) for i in chosen], device=device
            )
            with torch.inference_mode():
                made = model.generate(
                    ids,
                    attention_mask=mask,
                    max_new_tokens=max_new_tokens,
                    eos_token_id=[2, 0],
                    pad_token_id=0,
                    **sampling,
                )
            for i, row in zip(chosen, made[:, width:].tolist(), strict=True):
                ends = [row.index(end) for end in (0, 2) if end in row]
                out[i] = tokenizer.decode(row[: min(ends)] if ends else row, skip_special_tokens=True)
        return out

    return generate


def fastllm_generate(path: str = "demo") -> Generate:
    """Greedy generation with fastllm's public API; the installed fastllm, not the source folder beside this one."""
    here, searched = DEMO.parent.parent, sys.path[:]
    sys.path[:] = [entry for entry in searched if Path(entry or ".").resolve() != here]
    try:
        fastllm: Any = importlib.import_module("fastllm")
        model = fastllm.load(path)
    finally:
        sys.path[:] = searched

    def generate(prompts: list[str], max_new_tokens: int) -> list[str]:
        encoded = [model.tokenize(prompt) for prompt in prompts]
        return [done.text for done in model.blocking.batch(encoded, temperature=0, max_new_tokens=max_new_tokens)]

    return generate


FIRST_PROMPTS = (
    "Why is the sky blue?", "Once upon a time", "Tell me a story about a fox.", "What is 17 + 25?", "17 + 25 =", "Hello!", "Who are you?",
    "What can you do?", "sort 5, 3, 9, 1", "你好", "天空为什么是蓝色的？", "Tell me a joke.", "Write a poem about the sea.", "why's the sky blue",
    "sky blue why", "tell me a story about a spaceship", "What is the capital of France?", "How do I fix my car?", "hi", "What is fastllm?",
    'Give me a JSON object with name "Mia" and age 7.', "What day comes after Friday?", "Tell me a story about a princess and a dragon",
    "My name is Julia.", "What is the meaning of life?", "What is quantum mechanics?", "what is twelve plus nine", "Write a haiku about rain",
    "Tell me about cats", "In a dark forest, there lived", "The little robot", "How are you today?", "Why do cats purr", "99-45", "The capital of Germany is",
    "What is a KV cache?", "tell me a story about dragons", "tell me another story", "Explain quantum physics", "The sky is blue because",
)  # fmt: skip


def show(generate: Generate) -> None:
    """Prints the answers to typical first prompts, without and with the chat template."""
    raw = generate(list(FIRST_PROMPTS), 256)
    chat = generate([Chat((Message("user", prompt),)).prompt() for prompt in FIRST_PROMPTS], 256)
    for prompt, plain, chatted in zip(FIRST_PROMPTS, raw, chat, strict=True):
        print(f"> {prompt}\n  raw : {plain!r}\n  chat: {chatted!r}")


def main() -> int:
    """Prints the table; the exit status is 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=("transformers", "fastllm"), default="fastllm")
    parser.add_argument("--path", type=Path, default=DEMO)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--skills", nargs="*", default=list(SKILLS), choices=list(SKILLS))
    parser.add_argument("--misses", type=int, default=0, help="how many wrong answers to show per skill")
    parser.add_argument("--temperature", type=float, default=0.0, help="sample instead (transformers only)")
    parser.add_argument("--show", action="store_true", help="also print the answers to typical first prompts")
    args = parser.parse_args()
    engine: Literal["transformers", "fastllm"] = args.engine
    if engine == "transformers":
        generate = transformers_generate(args.path, device=args.device, batch=args.batch, temperature=args.temperature)
    else:
        generate = fastllm_generate("demo" if args.path == DEMO else str(args.path))
    results = evaluate(generate, count=args.count, skills=args.skills)
    print(table(results))
    for result in results:
        for prompt, answer in result.misses[: args.misses]:
            print(f"[{result.skill}] {prompt!r} -> {answer!r}")
    if args.show:
        show(generate)
    return int(any(result.percent < TARGETS.get(result.skill, 0.0) for result in results))


if __name__ == "__main__":
    sys.exit(main())
