"""The sampling lab: sliders over one distribution, drawn from by the engine's own sampler."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from fastllm import _core
from fastllm.config import GenerationConfig
from fastllm.display.sampling import sampling_html, softmax
from fastllm.display.style import style_tag
from fastllm.widgets._view import View, html_widget, stock

if TYPE_CHECKING:
    from fastllm.model import Model

__all__ = ["SamplingLab"]

_SEED = 1
_NEUTRAL = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}


class SamplingLab(View):
    """One place in a text, and what temperature, top-k, top-p and min-p make of it.

    Attributes:
        logits: The model's scores [vocab].
        settings: What the sliders say; set it to move them.
    """

    runs = False

    def __init__(
        self, model: Model, logits: npt.NDArray[Any], /, *, token_ids: Sequence[int] = (), top: int = 16
    ) -> None:
        """Makes the lab.

        Args:
            model: Names the tokens.
            logits: Scores [vocab] for the next token, such as ``(await model.logits(prompt))[-1]``.
            token_ids: What stands before, for penalties.
            top: Bars to show.
        """
        super().__init__()
        self._tokenizer = model.tokenizer
        self.logits = np.ascontiguousarray(logits, np.float32)
        self._token_ids = np.asarray(token_ids, np.int32)
        self._top = top
        self._before = softmax(self.logits)
        self._settings = dict(_NEUTRAL)
        self._draws: Counter[int] = Counter()
        self._drawn = 0
        self._out: Any = None

    @property
    def settings(self) -> dict[str, float]:
        """Temperature, top_k, top_p, min_p."""
        return dict(self._settings)

    @settings.setter
    def settings(self, given: dict[str, float]) -> None:
        unknown = set(given) - set(_NEUTRAL)
        if unknown:
            raise KeyError(f"[sampling] there is no slider for {', '.join(sorted(unknown))}.")
        if self._widget is None:
            self._settings.update(given)
            return
        for name, value in given.items():
            self._sliders[name].value = value

    def distribution(self) -> npt.NDArray[np.float64]:
        """Probabilities [vocab] that the sampler draws from under the present settings."""
        params = self._params()
        if params["temperature"] == 0:
            only = np.zeros(len(self.logits), np.float64)
            only[int(np.argmax(self.logits))] = 1.0
            return only
        return softmax(self._sample(params, 1)["logits"])

    def draw(self, count: int = 1000) -> Counter[int]:
        """Draws tokens with seeds 1, 2, ... and counts them; the display shows the counts."""
        self._draws = Counter(int(index) for index in self._sample(self._params(), count)["ids"])
        self._drawn = count
        self._redraw()
        return self._draws

    def _params(self) -> dict[str, Any]:
        config = GenerationConfig(**{**self._settings, "top_k": int(self._settings["top_k"])})  # type: ignore[arg-type]
        return {
            "temperature": config.temperature, "top_k": config.top_k, "top_p": config.top_p, "min_p": config.min_p,
            "seed": _SEED, "logprobs": 1,
        }  # fmt: skip

    def _sample(self, params: dict[str, Any], draws: int) -> dict[str, Any]:
        return _core.sample_logits(self.logits, self._token_ids, params, draws=draws)

    # --- View

    def _html(self, *, style: bool) -> str:
        order = np.argsort(-self._before, kind="stable")[: self._top]
        names = {int(i): self._tokenizer.token_bytes(int(i)).decode("utf-8", "replace") for i in order}
        return sampling_html(
            self._before,
            self.distribution(),
            names,
            settings=list(self._settings.items()),
            draws=self._draws if self._drawn else None,
            top=self._top,
            style=style,
        )

    def _static(self) -> tuple[str, str]:
        after = self.distribution()
        said = ", ".join(f"{name}={value:g}" for name, value in self._settings.items())
        return f"<SamplingLab {said} · {int((after > 0).sum())} of {len(after)} tokens left>", self._html(style=True)

    def _build(self) -> Any:
        widgets = stock()
        wide = {"continuous_update": True, "style": {"description_width": "7em"}, "layout": {"width": "26em"}}
        self._sliders = {
            "temperature": widgets.FloatSlider(1.0, min=0.0, max=2.5, step=0.05, description="temperature", **wide),
            "top_k": widgets.IntSlider(0, min=0, max=50, description="top-k (0: off)", **wide),
            "top_p": widgets.FloatSlider(1.0, min=0.05, max=1.0, step=0.01, description="top-p", **wide),
            "min_p": widgets.FloatSlider(0.0, min=0.0, max=0.5, step=0.01, description="min-p", **wide),
        }
        for name, slider in self._sliders.items():
            slider.value = self._settings[name]
            slider.observe(self._moved, names="value")
        draw = widgets.Button(description="Draw 1000", tooltip="Draws a thousand tokens with the engine's sampler.")
        draw.on_click(lambda _: self.draw(1000))
        self._out = html_widget(self._html(style=False), "flm1-blk")
        return widgets.VBox([html_widget(style_tag(), "flm1-blk"), *self._sliders.values(), draw, self._out])

    def _moved(self, _: object) -> None:
        self._settings = {name: slider.value for name, slider in self._sliders.items()}
        self._draws, self._drawn = Counter(), 0
        self._redraw()

    def _redraw(self) -> None:
        if self._out is not None:
            with self._lock:
                self._out.value = self._html(style=False)
            self._touch()
