"""What a benchmark writes, and how two things are compared."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

ROUNDS = 7
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Figure:
    """One entry of ``bench/results/latest.json``.

    ``spread`` is (smallest, largest) over the rounds, ``against`` what it is measured against.
    ``bar`` is text such as ">= 0.97", "" for a figure that is only reported: ``met`` is None then.
    """

    name: str
    value: float
    unit: str
    spread: tuple[float, float]
    rounds: int
    against: str
    bar: str = ""
    met: bool | None = None


def figure(
    name: str, values: Sequence[float], unit: str, *, against: str = "", bar: str = ""
) -> Figure:
    """The median of ``values`` judged by ``bar`` ("<op> <number>" with op one of >=, <=, ==)."""
    value = statistics.median(values)
    return Figure(
        name=name,
        value=round(value, 4),
        unit=unit,
        spread=(round(min(values), 4), round(max(values), 4)),
        rounds=len(values),
        against=against,
        bar=bar,
        met=meets(value, bar),
    )


def meets(value: float, bar: str) -> bool | None:
    """Whether ``value`` is within ``bar``; None without a bar."""
    if not bar:
        return None
    operator, _, number = bar.partition(" ")
    tests: dict[str, Callable[[float, float], bool]] = {
        ">=": float.__ge__,
        "<=": float.__le__,
        "==": float.__eq__,
    }
    return tests[operator](float(value), float(number))


def interleaved(
    a: Callable[[], float], b: Callable[[], float], rounds: int = ROUNDS
) -> list[float]:
    """Ratios a/b of :func:`pairs`."""
    return [first / second for first, second in pairs(a, b, rounds)]


def pairs(a: Callable[[], T], b: Callable[[], T], rounds: int = ROUNDS) -> list[tuple[T, T]]:
    """What ``rounds`` pairs run A/B/A/B gave, after one pair that is not counted.

    The order within a pair alternates, so that a drift of the machine cancels out.
    """
    a(), b()
    seen = []
    for number in range(rounds):
        if number % 2:
            second, first = b(), a()
        else:
            first, second = a(), b()
        seen.append((first, second))
    return seen


def beside(kept: Sequence[dict[str, Any]], measured: Sequence[Figure]) -> list[dict[str, Any]]:
    """``kept`` with what was measured now in its place, by name; what is new comes last.

    Raises ValueError where two figures have one name.
    """
    fresh = {each.name: asdict(each) for each in measured}
    if len(fresh) < len(measured):
        raise ValueError("two figures have the same name: name each by what it is")
    replaced = [fresh.pop(each["name"], each) for each in kept]
    return [*replaced, *fresh.values()]


def write(figures: Sequence[Figure], path: Path, *, keep: bool = False) -> None:
    """Write the list that all benchmarks share the form of. ``keep``: figures that are there and
    were not measured now stay."""
    kept = json.loads(path.read_text()) if keep and path.exists() else []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(beside(kept, figures), indent=2) + "\n")
