"""Attention heads and the logit lens with controls to choose by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastllm.display.attention import attention_grid_html, attention_html, attention_lines_html
from fastllm.display.html import alert
from fastllm.display.lens import lens_html
from fastllm.display.style import style_tag, wrap
from fastllm.widgets._view import View, alarm, html_widget, stock

if TYPE_CHECKING:
    from fastllm.tensor import Tensor

__all__ = ["AttentionView", "LensView"]

_FORMS = (("map", "map"), ("lines", "lines"), ("all heads", "grid"))


class AttentionView(View):
    """Attention patterns of a run: layer and head by slider, as a map, as lines, or all heads at once."""

    runs = False

    def __init__(
        self,
        pattern: Callable[[int], Tensor | npt.NDArray[Any]],
        labels: Sequence[str],
        /,
        *,
        layers: int,
        layer: int = 0,
        head: int = 0,
    ) -> None:
        """Makes the view.

        Args:
            pattern: Gives a layer's pattern, [heads, tokens, tokens], such as a capture's ``attention``.
            labels: Texts of the tokens.
            layers: Layers there are.
            layer: Shown first.
            head: Shown first.
        """
        super().__init__()
        self._pattern, self._labels, self._layers = pattern, list(labels), layers
        self._at: dict[str, Any] = {"layer": layer, "head": head, "form": "map"}
        self._out: Any = None

    def _html(self, *, style: bool) -> str:
        heads = np.asarray(self._pattern(int(self._at["layer"])))
        layer, head = int(self._at["layer"]), min(int(self._at["head"]), len(heads) - 1)
        if self._at["form"] == "grid":
            return attention_grid_html(heads, self._labels, layer=layer, style=style)
        draw = attention_lines_html if self._at["form"] == "lines" else attention_html
        return draw(heads[head], self._labels, layer=layer, head=head, style=style)

    def _static(self) -> tuple[str, str]:
        said = f"<AttentionView layer {self._at['layer']}, head {self._at['head']}, {len(self._labels)} tokens>"
        return said, self._html(style=True)

    def _build(self) -> Any:
        widgets = stock()
        heads = len(np.asarray(self._pattern(int(self._at["layer"]))))
        controls = {
            "layer": widgets.IntSlider(self._at["layer"], 0, self._layers - 1, description="layer"),
            "head": widgets.IntSlider(self._at["head"], 0, heads - 1, description="head"),
            "form": widgets.ToggleButtons(options=_FORMS, value=self._at["form"], style={"button_width": "auto"}),
        }
        self._out = html_widget(self._html(style=False), "flm1-blk")

        def moved(_: object) -> None:
            self._at = {name: control.value for name, control in controls.items()}
            with self._lock:
                try:
                    self._out.value = self._html(style=False)
                except Exception as error:  # a layer that was not captured, say
                    self._out.value = wrap(alert(alarm(error)), style=False)
            self._touch()

        for control in controls.values():
            control.observe(moved, names="value")
        return widgets.VBox([html_widget(style_tag(), "flm1-blk"), *controls.values(), self._out])


class LensView(View):
    """The logit lens; choose whether ranks are shown and how many positions."""

    runs = False

    def __init__(self, lens: Any, /) -> None:
        """Makes the view.

        Args:
            lens: What a capture's ``logit_lens`` gives: names, labels, texts, logprobs, target_rank, target_logprob.
        """
        super().__init__()
        self._lens = lens
        self._last, self._ranks = min(16, len(lens.labels)), True
        self._out: Any = None

    def _html(self, *, style: bool) -> str:
        lens, start = self._lens, len(self._lens.labels) - self._last
        return lens_html(
            lens.names,
            lens.labels[start:],
            [row[start:] for row in lens.texts],
            lens.logprobs[:, start:],
            target_rank=lens.target_rank[:, start:] if self._ranks else None,
            target_logprob=lens.target_logprob[:, start:],
            positions=lens.positions[start:],
            style=style,
        )

    def _static(self) -> tuple[str, str]:
        return f"<LensView {len(self._lens.names)} layers, {len(self._lens.labels)} positions>", self._html(style=True)

    def _build(self) -> Any:
        widgets = stock()
        last = widgets.IntSlider(self._last, 1, max(1, len(self._lens.labels)), description="positions")
        ranks = widgets.Checkbox(self._ranks, description="ranks of the final token")
        self._out = html_widget(self._html(style=False), "flm1-blk")

        def moved(_: object) -> None:
            self._last, self._ranks = last.value, ranks.value
            with self._lock:
                self._out.value = self._html(style=False)
            self._touch()

        last.observe(moved, names="value")
        ranks.observe(moved, names="value")
        return widgets.VBox([html_widget(style_tag(), "flm1-blk"), last, ranks, self._out])
