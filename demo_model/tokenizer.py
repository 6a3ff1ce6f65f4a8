"""Trains the byte-level BPE tokenizer of the demo model and writes its Hugging Face files."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from demo_model.corpus.base import END_OF_TEXT, IM_END, IM_START, TOOL_TAGS, TOOLS_HEAD, TOOLS_TAIL
from demo_model.corpus.mixture import documents

VOCABULARY = 2048
DEMO = Path(__file__).resolve().parent.parent / "fastllm" / "demo"

# Words with the space before them, digits one by one, runs of punctuation, line ends, other white space.
_PATTERN = r"'(?:s|t|re|ve|m|ll|d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]|\s+(?!\S)|\s+"


def chat_template() -> str:
    """The jinja chat template: ChatML, tools in the system block, tool results in the user's turn."""
    head, tail = (json.dumps(part) for part in (TOOLS_HEAD, TOOLS_TAIL))
    return (
        "{%- set first = 1 if messages and messages[0].role == 'system' else 0 %}"
        "{%- if tools %}"
        "{{- '<|im_start|>system\\n' + (messages[0].content + '\\n\\n' if first and messages[0].content else '') + "
        + head
        + " }}"
        "{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}"
        "{{- " + tail + " + '<|im_end|>\\n' }}"
        "{%- elif first %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{%- endif %}"
        "{%- for message in messages[first:] %}"
        "{%- if message.role == 'tool' %}"
        "{%- if loop.first or loop.previtem.role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}"
        "{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}"
        "{%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}"
        "{%- elif message.role == 'assistant' and message.tool_calls %}"
        "{{- '<|im_start|>assistant\\n' + (message.content + '\\n' if message.content else '') }}"
        "{%- for tool_call in message.tool_calls %}"
        "{%- set call = tool_call.function if tool_call.function else tool_call %}"
        '{{- \'<tool_call>\\n{"name": "\' + call.name + \'", "arguments": \' }}'
        "{{- call.arguments if call.arguments is string else call.arguments | tojson }}"
        "{{- '}\\n</tool_call>' + ('' if loop.last else '\\n') }}"
        "{%- endfor %}{{- '<|im_end|>\\n' }}"
        "{%- else %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}{%- endif %}"
        "{%- endfor %}"
        "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
    )


def _texts(count: int) -> Iterator[str]:
    for document in islice(documents(20_000), count):
        for segment in document.segments:
            yield segment.text


def train_tokenizer(*, count: int = 60_000) -> Tokenizer:
    """The tokenizer, trained on the first documents of one stream of the corpus.

    Args:
        count: how many documents to read.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(text, special=True, normalized=False) for text in (END_OF_TEXT, IM_START, IM_END)]
    tags = [AddedToken(text, special=False, normalized=False) for text in TOOL_TAGS]
    tokenizer.add_special_tokens(specials)
    tokenizer.add_tokens(tags)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*specials, *(AddedToken(text, special=True, normalized=False) for text in TOOL_TAGS)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(count), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Writes tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    folder.mkdir(parents=True, exist_ok=True)
    written = json.loads(tokenizer.to_str())
    for added in written["added_tokens"]:
        added["special"] = added["content"] not in TOOL_TAGS  # tool calls stay visible when special tokens are skipped
    (folder / "tokenizer.json").write_text(
        json.dumps(written, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
    )
    template = chat_template()
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": None,
        "eos_token": IM_END,
        "pad_token": END_OF_TEXT,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1024,
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def main() -> None:
    """Trains the tokenizer and writes its files."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, default=DEMO)
    parser.add_argument("--documents", type=int, default=60_000)
    args = parser.parse_args()
    tokenizer = train_tokenizer(count=args.documents)
    save_tokenizer(tokenizer, args.out)
    print(f"{tokenizer.get_vocab_size()} pieces, {(args.out / 'tokenizer.json').stat().st_size} bytes")


if __name__ == "__main__":
    main()
