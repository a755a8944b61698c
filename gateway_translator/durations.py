"""Durations as Gateway API writes them. Source: GEP-2257."""

from __future__ import annotations

import re

_SHAPE = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
_PART = re.compile(r"([0-9]+)(ms|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


def seconds(text: str) -> float | None:
    """Of ``1h10m``, ``500ms``; None for the empty text. Raises ValueError."""
    if not text:
        return None
    if not _SHAPE.fullmatch(text):
        raise ValueError(f"{text!r} is no duration; write it as 500ms, 10s or 1h30m")
    return sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
