"""`python -m fastllm` is the `fastllm` command."""

from fastllm.cli import main

raise SystemExit(main())
