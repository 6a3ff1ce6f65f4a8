"""The `fastllm` command: run, chat, info, bench. A file for each; `main` dispatches and words the errors."""

from fastllm.cli.main import main

__all__ = ["main"]
