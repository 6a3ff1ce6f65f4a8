"""Colour tables of 256 entries, computed in OKLCH (Ottosson 2020) so that lightness alone carries the order.

"sequential" runs from a dark blue to a light yellow with even steps of lightness; "diverging" from blue over near-white
to red, as light on one side as on the other. Both stay in order for readers without red-green or blue-yellow sight,
and in grey print. The ten shades behind tokens are one hue in ten lightnesses, for a light and for a dark page.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

__all__ = ["SCALES", "contrast", "hex_color", "luminance", "shades", "table"]

SCALES = ("diverging", "sequential")
_FloatArray = npt.NDArray[np.float64]

# OKLab to linear sRGB, from https://bottosson.github.io/posts/oklab/
_TO_LMS = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def _linear_rgb(lightness: _FloatArray, chroma: _FloatArray, hue_deg: _FloatArray) -> _FloatArray:
    hue = np.deg2rad(hue_deg)
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    result: _FloatArray = (lab @ _TO_LMS.T) ** 3 @ _TO_RGB.T
    return result


def _encode(linear: _FloatArray) -> npt.NDArray[np.uint8]:
    clipped = np.clip(linear, 0.0, 1.0)
    gamma = np.where(clipped <= 0.0031308, 12.92 * clipped, 1.055 * clipped ** (1 / 2.4) - 0.055)
    result: npt.NDArray[np.uint8] = np.rint(gamma * 255).astype(np.uint8)
    return result


def _fitting_chroma(lightness: _FloatArray, chroma: _FloatArray, hue_deg: _FloatArray) -> _FloatArray:
    """The chroma, lowered to what the screen can show at this lightness and hue."""
    low, high = np.zeros_like(chroma), chroma.copy()
    for _ in range(16):
        rgb = _linear_rgb(lightness, high, hue_deg)
        fits = ((rgb >= -1e-6) & (rgb <= 1 + 1e-6)).all(axis=-1)
        low = np.where(fits, high, low)
        high = np.where(fits, high, (low + high) / 2)
    return low


@functools.cache
def table(scale: str) -> npt.NDArray[np.uint8]:
    """The colours of a scale.

    Args:
        scale: "sequential" (0: least) or "diverging" (128: zero).

    Returns:
        uint8 [256, 3], read-only.

    Raises:
        ValueError: There is no such scale.
    """
    place = np.linspace(0.0, 1.0, 256)
    if scale == "sequential":
        lightness = 0.24 + 0.71 * place
        hue = 285.0 - 180.0 * place**0.9
        chroma = _fitting_chroma(lightness, np.full(256, 0.15), hue)
        rgb = _encode(_linear_rgb(lightness, chroma, hue))
    elif scale == "diverging":
        away = np.abs(place - 0.5) * 2
        lightness = 0.97 - 0.55 * away
        wanted = 0.19 * away**0.9
        blue, red = np.full(256, 255.0), np.full(256, 27.0)
        chroma = np.minimum(_fitting_chroma(lightness, wanted, blue), _fitting_chroma(lightness, wanted, red))
        rgb = _encode(_linear_rgb(lightness, chroma, np.where(place < 0.5, blue, red)))
    else:
        raise ValueError(f"[color] {scale!r} is no scale: {', '.join(SCALES)}.")
    rgb.setflags(write=False)
    return rgb


@functools.cache
def shades(*, dark: bool) -> tuple[str, ...]:
    """Ten backgrounds behind tokens, from none (0) to strongest (9), for the page's text colour on them."""
    step = np.linspace(0.0, 1.0, 10)
    lightness = 0.22 + 0.22 * step if dark else 1.0 - 0.24 * step
    hue = np.full(10, 250.0)
    chroma = _fitting_chroma(lightness, 0.12 * step, hue)
    return tuple(hex_color(row) for row in _encode(_linear_rgb(lightness, chroma, hue)))


def hex_color(rgb: npt.NDArray[np.uint8]) -> str:
    """[1, 2, 255] -> "#0102ff"."""
    return "#" + bytes(int(part) for part in rgb).hex()


def luminance(color: str) -> float:
    """Relative luminance of "#rrggbb", as WCAG 2 defines it."""
    parts = np.frombuffer(bytes.fromhex(color[1:]), np.uint8) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ np.array([0.2126, 0.7152, 0.0722]))


def contrast(first: str, second: str) -> float:
    """Contrast ratio of two colours "#rrggbb", 1 to 21, as WCAG 2 defines it."""
    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
