"""The benchmark's own arithmetic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.figures import figure, interleaved, meets, write


@pytest.mark.parametrize(
    ("value", "bar", "met"),
    [
        (0.97, ">= 0.97", True),
        (0.96, ">= 0.97", False),
        (100, "<= 100", True),
        (2, "== 1", False),
        (5, "", None),
    ],
)
def test_bar(value: float, bar: str, met: bool | None) -> None:
    assert meets(value, bar) is met


def test_figure_is_the_median_with_its_spread() -> None:
    made = figure("x", [3.0, 1.0, 2.0], "ms", bar="<= 2")
    assert (made.value, made.spread, made.rounds, made.met) == (2.0, (1.0, 3.0), 3, True)


def test_interleaved_alternates_and_drops_the_first_pair() -> None:
    calls: list[str] = []

    def run(name: str, result: float) -> float:
        calls.append(name)
        return result

    ratios = interleaved(lambda: run("a", 2.0), lambda: run("b", 4.0), rounds=2)
    assert ratios == [0.5, 0.5]
    assert "".join(calls) == "ababba"


def test_what_was_not_measured_now_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "latest.json"
    write([figure("a", [1.0], "ms"), figure("b", [1.0], "ms")], path)
    write([figure("c", [3.0], "ms"), figure("a", [2.0], "ms")], path, keep=True)
    seen = [(each["name"], each["value"]) for each in json.loads(path.read_text())]
    assert seen == [("a", 2.0), ("b", 1.0), ("c", 3.0)]
    write([figure("c", [4.0], "ms")], path)
    assert [each["name"] for each in json.loads(path.read_text())] == ["c"]


def test_figures_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="same name"):
        write([figure("a", [1.0], "ms"), figure("a", [2.0], "ms")], tmp_path / "latest.json")
