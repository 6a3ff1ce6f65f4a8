"""What several files of tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A page without a browser: comms and displays that are noted and go nowhere."""
    from wire import opened

    with opened(monkeypatch) as page:
        yield page
