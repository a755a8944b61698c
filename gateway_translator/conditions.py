"""Conditions of statuses. The writer fills in ``lastTransitionTime``: nothing here has a clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Condition:
    """Source: meta/v1 Condition. ``reason`` as Gateway API spells it."""

    type: str
    status: bool
    reason: str
    message: str = ""


def good(type_: str, reason: str = "") -> Condition:
    """True, for the reason that has the condition's own name unless another is given."""
    return Condition(type_, True, reason or type_)


def bad(type_: str, reason: str, message: str) -> Condition:
    return Condition(type_, False, reason, message)


def render(conditions: Iterable[Condition], generation: int) -> list[dict[str, Any]]:
    return [
        {
            "type": each.type,
            "status": "True" if each.status else "False",
            "reason": each.reason,
            "message": each.message,
            "observedGeneration": generation,
        }
        for each in conditions
    ]
