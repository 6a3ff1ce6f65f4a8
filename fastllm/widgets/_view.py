"""What live displays share: where they are shown, the pace of their updates, and the copy that stays.

A widget that is loaded again without its kernel reads "model not found". So each place where a view is shown has a
display id, and when the view is over that place gets plain HTML, which is what is saved, exported and read later.

A view that is never over, such as a panel, has its copy beside it from the beginning, renewed when the view changed.
The stylesheet hides the copy while the widget lives, and the widget's place when it does not: what is saved at any time
can be read without a kernel.
"""

from __future__ import annotations

import atexit
import importlib
import threading
import time
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from anyio import move_on_after

from fastllm._loops import LoopGone, current_loop
from fastllm.widgets import _ticker

__all__ = ["View", "alarm", "box_widget", "common", "freeze_all", "html_widget", "in_notebook", "page", "stock"]

_WIDGET = "application/vnd.jupyter.widget-view+json"
_HEARTBEAT_S = 0.2
_STILL_S = 0.7  # without a change, before a copy is renewed
_KEPT = 16  # widgets of finished views that stay open, for pages that cannot take a frozen copy
_finished: deque[Any] = deque()
_shared: dict[str, Any] = {}
_shown: weakref.WeakSet[View] = weakref.WeakSet()


def stock() -> Any:
    """The module ipywidgets.

    Raises:
        ImportError: It is not installed; says how to get it.
    """
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError(
            "[display] live displays need ipywidgets 8, which is not installed. "
            'Run `pip install "fastllm[notebook]"` or `conda install ipywidgets`.',
            name="ipywidgets",
        ) from error
    return ipywidgets


def in_notebook() -> bool:
    """Whether this is a kernel that a notebook talks to; not a script, not a terminal."""
    import sys

    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


def _cell() -> object:
    """Which cell runs."""
    import sys

    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "execution_count", None)


def page() -> Any:
    """The module IPython.display."""
    return importlib.import_module("IPython.display")


def common(kind: str, make: Callable[[], Any]) -> Any:
    """A layout or a style that all plain parts of a kind have: fewer objects, fewer messages."""
    part = _shared.get(kind)
    if part is None or part.comm is None:  # closed, say by Widget.close_all()
        part = _shared[kind] = make()
    return part


def html_widget(value: str = "", *classes: str, **options: Any) -> Any:
    """An ipywidgets.HTML that takes the height of what is in it."""
    html = stock().HTML
    options.setdefault("layout", common("layout", stock().Layout))
    options.setdefault("style", common("style", lambda: html(layout=options["layout"]).style))
    return html(value=value, _dom_classes=classes, **options)


def box_widget(children: Sequence[Any], *classes: str) -> Any:
    """An ipywidgets.Box whose looks are in the stylesheet."""
    return stock().Box(tuple(children), _dom_classes=classes, layout=common("layout", stock().Layout))


class View:
    """A live display.

    Attributes:
        widget: The ipywidgets tree; made when first needed.
        frozen: Whether the static copy has taken its place.
        error: What broke it, or the request behind it.
        runs: Whether it ends by itself. One that does not has a copy beside it until `freeze`, or the kernel's end.
    """

    runs = True

    def __init__(self) -> None:
        self.frozen = False
        self.error: Exception | None = None
        self._widget: Any = None
        self._stop: Any = None  # the button, if it has one
        self._places: list[str] = []
        self._copies: list[str] = []  # places beside these, of a view that does not end
        self._copier = _Copier(self)
        self._cell: object = None  # that show() put it below
        self._lock = threading.RLock()
        self._done = threading.Event()
        self._when_done: list[Callable[[], None]] = []

    # --- for subclasses

    def _build(self) -> Any:
        """Makes the widget."""
        raise NotImplementedError

    def _static(self) -> tuple[str, str]:
        """Text and HTML of the present state."""
        raise NotImplementedError

    def _words(self) -> str:
        """Text of the present state."""
        return self._static()[0]

    def _look(self, now: float) -> bool:
        """Reads and redraws; False at the end. Called with the lock held."""
        return False

    def _blocks(self, caption: str) -> None:
        """The cell waits in its thread from now on: how it can be interrupted is told, or "" no more."""

    # --- showing

    @property
    def widget(self) -> Any:
        """The ipywidgets tree."""
        with self._lock:
            if self._widget is None:
                self._widget = self._build()
                if not self.runs:
                    self._widget.add_class("flm1-live")
            return self._widget

    def show(self) -> None:
        """Puts the view on the page. A cell that ends with it does not show it twice."""
        self._ipython_display_()
        self._cell = _cell()

    def _ipython_display_(self) -> None:
        if self._cell is not None and self._cell == _cell():
            self._cell = None
            return
        static = (self.frozen and self.runs) or not in_notebook()  # before the look: it may end meanwhile
        if static:
            text, html = self._static()
            page().display({"text/plain": text, **({"text/html": html} if in_notebook() else {})}, raw=True)
            return
        words = self._words()
        view = {"version_major": 2, "version_minor": 0, "model_id": self.widget.model_id}
        display_id = uuid.uuid4().hex
        self._places.append(display_id)
        page().display({"text/plain": words, _WIDGET: view}, raw=True, display_id=display_id)
        if not self.runs:
            self._copies.append(f"{display_id}-copy")
            page().display(self._copy(), raw=True, display_id=self._copies[-1])
        _shown.add(self)
        if self.done and self.runs:  # meanwhile
            self.freeze()

    def _copy(self) -> dict[str, str]:
        """The present state for readers without a kernel."""
        return {"text/plain": "", "text/html": f'<div class="flm1-copy">{self._static()[1]}</div>'}

    def _touch(self) -> None:
        """What is shown has changed: the copy beside it follows in a moment. From any thread."""
        if self._copies:
            self._copier.call()

    def __repr__(self) -> str:
        return self._words()

    def freeze(self) -> None:
        """Puts a static copy of the present state wherever the view is shown. May be called again, from any thread."""
        with self._lock:
            text, html = self._static()
            places, self._places = self._places, []
            copies, self._copies = self._copies, []
            self.frozen = True
        for display_id in places:
            self._put(display_id, {"text/plain": text, "text/html": html})
        for display_id in copies:
            self._put(display_id, {"text/plain": "", "text/html": ""})
        if self._widget is not None and self.runs:
            _finished.append(self._widget)
            _tidy(_KEPT * 4)

    def _put(self, display_id: str, bundle: dict[str, str]) -> None:
        try:
            page().update_display(bundle, raw=True, display_id=display_id)
        except Exception as error:  # the place is gone; the view's own state still tells all
            self.error = self.error or error

    # --- running

    def _start(self) -> None:
        """Has the ticker look after it."""
        _ticker.add(self, _tidy)

    def tick(self, now: float) -> bool:
        """Part of `_ticker.Ticking`."""
        try:
            with self._lock:
                if self._look(now):
                    return True
        except Exception as error:
            self.error = self.error or error
        self._end()
        return False

    def _end(self) -> None:
        try:
            if self._places:
                self.freeze()
            self.frozen = self.frozen or self._widget is None
        except Exception as error:
            self.error = self.error or error
        finally:
            self._done.set()
            while self._when_done:
                self._when_done.pop()()

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return self._done.is_set()

    async def _wait(self, on_cancel: Callable[[], None]) -> None:
        """Waits on any event loop until it has ended."""
        from fastllm.widgets._buttons import clicked

        loop = current_loop()
        event = loop.new_event()

        def wake() -> None:
            try:
                loop.post(event.set)
            except LoopGone:
                pass

        self._when_done.append(wake)
        if self.done:
            wake()
        try:
            # A kernel cancels an interrupted cell in a signal handler, which does not wake a loop that sleeps.
            while not self.done:
                with move_on_after(_HEARTBEAT_S):
                    await event.wait()
                if clicked(self._stop):
                    on_cancel()
        except BaseException:
            on_cancel()
            raise

    def wait(self, on_interrupt: Callable[[], None] | None = None) -> None:
        """Waits in the calling thread until it has ended; an interrupt is passed on."""
        try:
            if in_notebook() and not self.done:
                from fastllm.widgets._buttons import how_to_interrupt

                self._blocks(how_to_interrupt())
            while not self._done.wait(0.05):
                pass
        except BaseException:
            if on_interrupt is not None:
                on_interrupt()
            raise


class _Copier:
    """Renews the copies of a view when it has been still for a moment. Looked after by the ticker."""

    def __init__(self, view: View) -> None:
        self._view = weakref.ref(view)
        self._due = 0.0
        self._called = False
        self._lock = threading.Lock()

    def call(self) -> None:
        with self._lock:
            self._due = time.monotonic() + _STILL_S
            fresh, self._called = not self._called, True
        if fresh:
            _ticker.add(self)

    def tick(self, now: float) -> bool:
        """Part of `_ticker.Ticking`."""
        with self._lock:
            if now < self._due:
                return True
            self._called = False
        view = self._view()
        if view is not None:
            try:
                with view._lock:
                    bundle, copies = view._copy(), list(view._copies)
            except Exception as error:
                view.error = view.error or error
                return False
            for display_id in copies:
                view._put(display_id, bundle)
        return False


def _tidy(most: int = _KEPT) -> None:
    """Closes widgets of finished views but for the newest. A hundred messages each: best done when nothing is live."""
    while len(_finished) > most:
        _close(_finished.popleft())


def _close(widget: Any) -> None:
    """Closes a tree of widgets, with their own layouts and styles."""
    for child in (*getattr(widget, "children", ()), getattr(widget, "style", None), getattr(widget, "layout", None)):
        if hasattr(child, "close") and all(child is not part for part in _shared.values()):
            _close(child)
    try:
        widget.close()
    except KeyError:  # its comm was of a session that is over
        pass


def alarm(error: Exception) -> str:
    """An error as a display tells it: its kind, its text and its hint."""
    return f"{type(error).__name__}: {error}"


@atexit.register
def freeze_all() -> None:
    """Freezes every view that is on a page, say before a notebook is saved for readers without a kernel."""
    for view in list(_shown):
        if view._places:
            view.freeze()
