"""Numbers as displays write them: short, with units, the same everywhere."""

from __future__ import annotations

import math

__all__ = ["binary_size", "count", "duration", "percent", "rate", "short", "text_bar"]

_EIGHTHS = " ▏▎▍▌▋▊▉█"


def short(value: float, digits: int = 3) -> str:
    """0.000123 -> "0.000123", 1234567 -> "1.23e+06"; integers below 100 000 as such; NaN and Inf by name."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "Inf" if value > 0 else "-Inf"
    if value == int(value) and abs(value) < 1e5:
        return str(int(value))
    return f"{value:.{digits}g}"


def percent(share: float, digits: int = 1) -> str:
    """0.4213 -> "42.1 %"; what would read 0.0 but is not becomes "<0.1 %"."""
    least = 10.0**-digits
    if 0 < share * 100 < least / 2:
        return f"<{least:.{digits}f} %"
    return f"{share * 100:.{digits}f} %"


def binary_size(size: float) -> str:
    """1536 -> "1.5 KiB"."""
    if size < 1024:
        return f"{size:.0f} B"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1024 or unit == "TiB":
            break
    return f"{size:.0f} {unit}" if size >= 100 or size == int(size) else f"{size:.1f} {unit}"


def count(number: float) -> str:
    """1543714304 -> "1.54 B" (milliards), 12000 -> "12 k"; small ones as they are."""
    for unit, scale in (("B", 1e9), ("M", 1e6), ("k", 1e4)):
        if number >= scale:
            return f"{number / (1e3 if unit == 'k' else scale):.3g} {unit}"
    return f"{number:g}"


def duration(seconds: float) -> str:
    """0.084 -> "84 ms", 3.2 -> "3.2 s", 90 -> "1 min 30 s"."""
    if seconds < 0.01:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def rate(per_second: float) -> str:
    """58.34 -> "58.3 tok/s"; from 1000 on without a decimal."""
    return f"{per_second:.1f} tok/s" if per_second < 1000 else f"{per_second:.0f} tok/s"


def text_bar(share: float, width: int = 12) -> str:
    """A bar of block characters, to an eighth of one: half of four is "██  "."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_EIGHTHS[rest] if rest else "")).ljust(width)
