"""Many requests at once: a row each, its text behind a click, failures in place."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any

from fastllm._loops import Loop, current_loop
from fastllm.batch import BatchResults, BatchStream, batch_error
from fastllm.display.batch import BatchRow, batch_html, batch_text, row_of
from fastllm.display.style import style_tag
from fastllm.errors import InvalidRequest
from fastllm.types import Completion, Token
from fastllm.widgets._buttons import stop_button
from fastllm.widgets._source import StreamSource
from fastllm.widgets._ticker import Pace
from fastllm.widgets._view import View, html_widget, stock

if TYPE_CHECKING:
    from fastllm.stream import RequestHandle

__all__ = ["BatchView"]

_UPDATES_PER_S = 4  # every update sends all rows


class BatchView(View):
    """Requests that run together. ``await view`` waits for all and gives their results."""

    def __init__(
        self, batch: BatchStream | Sequence[RequestHandle], /, *, labels: Sequence[str] = (), on_error: str = "raise"
    ) -> None:
        """Begins to read them.

        Args:
            batch: Streams, or a `BatchStream`, which is read on the running event loop.
            labels: A name for each, such as its prompt.
            on_error: "raise": awaiting raises `BatchError` if one failed; "return": exceptions stay in the list.

        Raises:
            InvalidRequest: A `BatchStream` without a running event loop.
            StreamBusy: Somebody else is reading one of them.
        """
        super().__init__()
        self._labels = [str(label) for label in labels]
        self._on_error = on_error
        self._pace = Pace(_UPDATES_PER_S)
        self._table: Any = None
        self._shown = ""
        self._group: BatchStream | None = None
        self._sources: list[StreamSource] = []
        self._read: dict[int, list[Token]] = {}
        self._group_over = False
        self._task: object = None
        if isinstance(batch, BatchStream):
            self._group = batch
            self._task = _loop().spawn(self._read_group)
        else:
            self._sources = [StreamSource(stream) for stream in batch]
        self._start()

    async def _read_group(self) -> None:
        group = self._group
        if group is None:
            return
        try:
            async for index, token in group:
                self._read.setdefault(index, []).append(token)
        except Exception as error:
            self.error = error
        finally:
            self._group_over = True

    # --- results

    @property
    def results(self) -> BatchResults[Completion | Exception]:
        """What has ended, in order; failures as exceptions."""
        if self._group is not None:
            found = self._group.results
            return BatchResults(found[index] for index in sorted(found))
        ended = (source.error or source.handle.completion for source in self._sources if source.ended)
        return BatchResults(item for item in ended if item is not None)

    def __await__(self) -> Generator[Any, Any, BatchResults[Completion | Exception]]:
        return self._result().__await__()

    async def _result(self) -> BatchResults[Completion | Exception]:
        await self._wait(self.cancel)
        results = self.results
        if self._on_error == "raise" and (error := self.error or batch_error(list(results))) is not None:
            raise error
        return results

    def cancel(self, *_: object) -> None:
        """Cancels all. From any thread or callback."""
        if self._group is not None:
            self._group.cancel()
        for source in self._sources:
            source.handle.cancel()

    # --- View

    def _look(self, now: float) -> bool:
        due = self._pace.ready(now)
        start = time.thread_time()
        for source in self._sources:
            if due or source.urgent:
                source.read()
        over = self._group_over if self._group is not None else all(source.ended for source in self._sources)
        if over or due:
            if self._table is not None:
                html = batch_html(self._rows(), style=False)
                if html != self._shown:
                    self._shown = self._table.value = html
                if over:
                    self._stop.disabled, self._stop.description = True, "Done"
            self._pace.spend(now, 1, time.thread_time() - start)
        return not over

    def _label(self, index: int) -> str:
        return self._labels[index] if index < len(self._labels) else ""

    def _rows(self) -> list[BatchRow]:
        if self._group is None:
            return [self._row(index, source) for index, source in enumerate(self._sources)]
        ended = self._group.results
        count = max([-1, *self._read, *ended, *self._group._active]) + 1
        return [
            row_of(ended[index], self._label(index)) if index in ended else self._running_row(index)
            for index in range(count)
        ]

    def _running_row(self, index: int) -> BatchRow:
        tokens = self._read.get(index, [])
        handle = None if self._group is None else self._group._active.get(index)
        state = "queued" if handle is None else handle.state
        limit = None if handle is None else handle.config.max_new_tokens
        return _live_row(self._label(index), state, tokens, limit)

    def _row(self, index: int, source: StreamSource) -> BatchRow:
        if source.ended:
            result = source.error or source.handle.completion
            if result is not None:
                return row_of(result, self._label(index))
        return BatchRow(
            label=self._label(index),
            state=source.handle.state,
            text=source.text,
            tokens=source.made,
            limit=source.handle.config.max_new_tokens,
            tps=source.speeds[0],
            ttft_s=source.first_s,
        )

    def _build(self) -> Any:
        self._table = html_widget(batch_html(self._rows(), style=False), "flm1-blk")
        self._stop = stop_button(self.cancel, "Stop all", "Cancels every request of the batch.")
        self._stop.disabled = self.done
        return stock().VBox([html_widget(style_tag(), "flm1-blk"), self._table, self._stop])

    def _static(self) -> tuple[str, str]:
        rows = self._rows()
        return batch_text(rows), batch_html(rows)


def _live_row(label: str, state: str, tokens: Sequence[Token], limit: int | None) -> BatchRow:
    made = [token for token in tokens if token.index >= 0]
    spent = made[-1].time_s - made[0].time_s if len(made) > 1 else 0.0
    return BatchRow(
        label=label,
        state=state,
        text="".join(token.text for token in tokens),
        tokens=len(made),
        limit=limit,
        tps=(len(made) - 1) / spent if spent > 0 else 0.0,
        ttft_s=made[0].time_s if made else None,
    )


def _loop() -> Loop:
    try:
        return current_loop()
    except RuntimeError as error:
        raise InvalidRequest(
            "[display] a BatchStream is read on an event loop, and none runs here.",
            hint="Show a list of streams instead: show([model.blocking.stream(p) for p in prompts]).",
        ) from error
