"""The training mixture: one endless, deterministic stream of documents per seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

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
from demo_model.corpus.base import Document, Split, Turn, chat_of, raw_document

Maker = Callable[[Random, Split], Document]


def _raw(turn: Turn, rng: Random) -> Document:
    form = rng.choice(
        ("{q}", "{q}", "{q}", "{q}", "{q}\n", "{q} ", "Q: {q}\nA:", "Question: {q}\nAnswer:", "User: {q}\nAssistant:")
    )
    return raw_document(turn.skill, form.format(q=turn.user), turn.answer)


def _raw_story_request(rng: Random, split: Split) -> Document:
    turn, _ = stories.request_turn(rng, split)
    return _raw(turn, rng)


def _story_chat(rng: Random, split: Split) -> Document:
    return chats.story_chat(rng, split)[0].document("story_telling")


def _styled(rng: Random, split: Split) -> Document:
    system, turns = system_prompts.styled(rng, split)
    return chat_of(turns, system=system).document("system_prompts")


def _one(maker: Callable[[Random, Split], Turn]) -> Maker:
    def make(rng: Random, split: Split) -> Document:
        turn = maker(rng, split)
        return chats.single(rng, turn).document(turn.skill)

    return make


def _one_raw(maker: Callable[[Random, Split], Turn]) -> Maker:
    return lambda rng, split: _raw(maker(rng, split), rng)


# (share of the documents, what makes one)
MIXTURE: tuple[tuple[float, Maker], ...] = (
    (5.0, stories.plain_document),
    (4.0, _raw_story_request),
    (2.0, stories.raw_question_document),
    (10.0, _story_chat),
    (5.0, lambda rng, split: chats.given_story_chat(rng, split).document("story_questions")),
    (5.0, lambda rng, split: chats.brought_story_chat(rng, split).document("story_questions")),
    (8.0, _one(arithmetic.turn)),
    (5.0, arithmetic.raw_document_of),
    (1.0, _one(lambda rng, _: arithmetic.times_turn(rng))),
    (0.5, _one_raw(lambda rng, _: arithmetic.times_turn(rng))),
    (0.8, _one(lambda rng, _: arithmetic.chain_turn(rng))),
    (0.4, _one_raw(lambda rng, _: arithmetic.chain_turn(rng))),
    (0.5, _one(lambda rng, _: arithmetic.compare_turn(rng))),
    (0.3, _one_raw(lambda rng, _: arithmetic.compare_turn(rng))),
    (0.6, _one(lambda rng, _: unknown.fragment_turn(rng))),
    (1.2, _one(lambda rng, _: common.poem_turn(rng))),
    (0.6, _one_raw(lambda rng, _: common.poem_turn(rng))),
    (0.7, _one(lambda rng, _: arithmetic.too_big_turn(rng))),
    (0.3, _one_raw(lambda rng, _: arithmetic.too_big_turn(rng))),
    (12.0, _one(lists.turn)),
    (4.0, _one_raw(lists.turn)),
    (2.0, _one(lambda rng, _: calendar_facts.turn(rng))),
    (1.0, _one_raw(lambda rng, _: calendar_facts.turn(rng))),
    (8.0, _one(common.turn)),
    (7.0, _one_raw(common.turn)),
    (2.0, common.statement_document),
    (3.5, _one(lambda rng, _: common.talk_turn(rng))),
    (2.0, _one_raw(lambda rng, _: common.talk_turn(rng))),
    (2.5, _one(chinese.turn)),
    (1.0, _one_raw(chinese.turn)),
    (3.0, _one(lambda rng, _: unknown.turn(rng))),
    (2.0, _one_raw(lambda rng, _: unknown.turn(rng))),
    (5.0, _one(json_objects.turn)),
    (1.5, _one_raw(json_objects.turn)),
    (6.0, lambda rng, split: tools.chat(rng, split).document("tools")),
    (5.0, _styled),
    (4.0, lambda rng, split: chats.memory_chat(rng, split).document("memory")),
    (0.5, _one(lambda rng, _: chats.not_told_turn(rng))),
    (0.7, _one_raw(lambda rng, _: chats.memory_turns(rng)[0])),
    (0.3, _one_raw(lambda rng, _: chats.not_told_turn(rng))),
    (6.0, lambda rng, split: chats.mixed_chat(rng, split).document("mixed")),
)


def documents(seed: int, *, split: Split = "train") -> Iterator[Document]:
    """An endless stream of documents; equal seeds give equal streams."""
    rng = Random(seed)
    makers = [maker for _, maker in MIXTURE]
    shares = [share for share, _ in MIXTURE]
    while True:
        for maker in rng.choices(makers, shares, k=256):
            yield maker(rng, split)
