"""A tensor with sliders: which plane, which colours, and tabs for what else there is to see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastllm._ops_stats import TensorStats, tensor_stats
from fastllm.display.escape import esc
from fastllm.display.html import alert
from fastllm.display.quant import quant_html
from fastllm.display.style import style_tag, wrap
from fastllm.display.tensor import (
    Plane,
    channels_html,
    facts_html,
    heat_html,
    histogram_html,
    plane_of,
    quantiles,
    stats_html,
    tensor_html,
    values_html,
)
from fastllm.errors import ShapeError
from fastllm.widgets._view import View, alarm, html_widget, stock

if TYPE_CHECKING:
    from fastllm.tensor import Tensor

__all__ = ["TensorView"]

_PAGE = 10
_TABS = ("Heat-map", "Histogram", "Values", "Channels", "Quantisation", "Memory")


class TensorView(View):
    """A tensor to look around in. Everything is computed when it is looked at, of the plane that is shown.

    Attributes:
        tensor: What is shown.
    """

    runs = False

    def __init__(
        self,
        tensor: Tensor,
        /,
        *,
        reference: Any = None,
        labels: Mapping[int, Sequence[str]] | None = None,
        owner: str = "",
    ) -> None:
        """Makes the view.

        Args:
            tensor: On any device.
            reference: The numbers it stands for, of the same shape, for the tab "Quantisation".
            labels: Names along axes.
            owner: What it belongs to, for the tab "Memory".

        Raises:
            ShapeError: The reference has another shape.
        """
        super().__init__()
        self.tensor = tensor
        self._labels = dict(labels or {})
        self._owner = owner
        self._reference = None if reference is None else np.asarray(reference)
        if self._reference is not None and self._reference.shape != tensor.shape:
            raise ShapeError(
                f"[inspect] the reference has shape {list(self._reference.shape)}, the tensor {list(tensor.shape)}.",
                expected=tensor.shape,
                actual=self._reference.shape,
            )
        self._stats: TensorStats | None = None

    # --- View

    def _static(self) -> tuple[str, str]:
        return repr(self.tensor), tensor_html(self.tensor, owner=self._owner)

    def _build(self) -> Any:
        widgets = stock()
        shape = self.tensor.shape
        ndim = len(shape)
        self._sliders = {
            axis: widgets.IntSlider(0, 0, size - 1, description=f"axis {axis}", continuous_update=False)
            for axis, size in enumerate(shape)
        }
        axes = [(f"axis {axis} ({size})", axis) for axis, size in enumerate(shape)]
        self._rows = widgets.Dropdown(options=axes or [("–", 0)], value=max(0, ndim - 2), description="rows")
        self._columns = widgets.Dropdown(options=axes or [("–", 0)], value=max(0, ndim - 1), description="columns")
        self._scale = widgets.Dropdown(
            options=[("diverging at 0", "diverging"), ("sequential", "sequential"), ("log |x|", "log")],
            description="colours",
        )
        self._range = widgets.Dropdown(
            options=[("auto, 3 σ", "auto"), ("min to max", "minmax"), ("fixed", "fixed")], description="range"
        )
        self._low = widgets.FloatText(-1.0, description="from")
        self._high = widgets.FloatText(1.0, description="to")
        self._row_page = widgets.IntSlider(0, 0, 0, description="first row", continuous_update=False)
        self._column_page = widgets.IntSlider(0, 0, 0, description="first column", continuous_update=False)
        self._out = html_widget("", "flm1-blk")
        self._tab = widgets.ToggleButtons(options=self._tabs(), style={"button_width": "auto"}, description="")
        for control in (
            *self._sliders.values(), self._rows, self._columns, self._scale, self._range, self._low, self._high,
            self._row_page, self._column_page, self._tab,
        ):  # fmt: skip
            control.observe(self._changed, names="value")
        self._changed()
        picks = widgets.HBox([self._rows, self._columns]) if ndim > 2 else widgets.HBox([])
        head = esc(repr(self.tensor))
        return widgets.VBox(
            [
                html_widget(style_tag() + wrap(f'<p class="flm1-m">{head}</p>', style=False), "flm1-blk"),
                self._tab,
                picks,
                widgets.VBox(list(self._sliders.values()) if ndim > 2 else []),
                widgets.HBox([self._scale, self._range, self._low, self._high]),
                widgets.HBox([self._row_page, self._column_page]),
                self._out,
            ]
        )

    def _tabs(self) -> list[str]:
        return [name for name in _TABS if name != "Quantisation" or self._reference is not None]

    # --- drawing

    def _changed(self, _: object = None) -> None:
        with self._lock:
            try:
                self._out.value = self._body()
            except Exception as error:
                self.error = error
                self._out.value = wrap(alert(alarm(error)), style=False)

    def _plane(self) -> Plane:
        ndim = self.tensor.ndim
        if ndim < 2:
            return plane_of(self.tensor)
        rows, columns = self._rows.value, self._columns.value
        if rows == columns:
            rows = next(axis for axis in reversed(range(ndim)) if axis != columns)
        for axis, slider in self._sliders.items():
            slider.layout.display = "none" if axis in (rows, columns) else ""
        return plane_of(
            self.tensor, axes=(rows, columns), at={axis: slider.value for axis, slider in self._sliders.items()}
        )

    def _body(self) -> str:
        tab = self._tab.value
        for control, tabs in (
            (self._scale, ("Heat-map",)), (self._range, ("Heat-map",)),
            (self._low, ("Heat-map",) if self._range.value == "fixed" else ()),
            (self._high, ("Heat-map",) if self._range.value == "fixed" else ()),
            (self._row_page, ("Values",)), (self._column_page, ("Values",)),
        ):  # fmt: skip
            control.layout.display = "" if tab in tabs else "none"
        if not self.tensor.size or tab == "Memory":
            return wrap(facts_html(self.tensor, owner=self._owner), style=False)
        plane = self._plane()
        if tab == "Heat-map":
            fixed = (self._low.value, self._high.value)
            range_ = fixed if self._range.value == "fixed" else self._range.value
            return wrap(heat_html(plane, scale=self._scale.value, range_=range_, side=256, least_px=320), style=False)
        whole = not self.tensor.dtype.floating
        if tab == "Histogram":
            if self._stats is None:
                self._stats = tensor_stats(self.tensor, sample=1 << 22, bins=40)
            marks = quantiles(plane.values)
            return wrap(histogram_html(self._stats) + stats_html(self._stats, marks, integers=whole), style=False)
        if tab == "Values":
            for slider, size in zip((self._row_page, self._column_page), plane.values.shape, strict=True):
                slider.max = max(0, size - 1)
                slider.step = _PAGE
            return wrap(
                values_html(
                    plane, whole=whole, top=self._row_page.value, left=self._column_page.value, labels=self._names()
                ),
                style=False,
            )
        if tab == "Channels":
            return wrap(channels_html(plane), style=False)
        return wrap(self._quantisation(plane), style=False)

    def _names(self) -> dict[int, Sequence[str]]:
        if self.tensor.ndim < 2:
            return {1: self._labels.get(0, ())}
        return {0: self._labels.get(self._rows.value, ()), 1: self._labels.get(self._columns.value, ())}

    def _quantisation(self, plane: Plane) -> str:
        from fastllm.tensor import Tensor

        reference = Tensor(self._reference)
        if self.tensor.ndim < 2:
            other = plane_of(reference)
        else:
            at = {axis: slider.value for axis, slider in self._sliders.items()}
            other = plane_of(reference, axes=(self._rows.value, self._columns.value), at=at)
        bits = 8 * self.tensor.nbytes / max(1, self.tensor.size)
        return quant_html(other.values, plane.values, bits_per_weight=bits, format_name=str(self.tensor.dtype))
