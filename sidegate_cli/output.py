"""One answer, three forms: a table for people, JSON and YAML for programs."""

# ruff: noqa: PLC0415 - rich and yaml are loaded when they are needed

from __future__ import annotations

import enum
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_WIDE = 400  # columns where the output is no terminal: nothing is cut off or wrapped


class Format(enum.StrEnum):
    """The value of ``-o``."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


def show(
    data: Any, form: Format, rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()
) -> None:
    """``data`` whole as JSON or YAML, or ``rows`` as a table of ``columns`` (default: all)."""
    if form is Format.JSON:
        print(json.dumps(data, indent=2))
    elif form is Format.YAML:
        import yaml

        yaml.safe_dump(data, sys.stdout, sort_keys=False, allow_unicode=True)
    else:
        table(rows, columns or list(dict.fromkeys(key for row in rows for key in row)))


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Nothing but a word where there are no rows."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        print("none")
        return
    drawn = Table(box=None, pad_edge=False, show_edge=False)
    for column in columns:
        drawn.add_column(column.upper().replace("_", " "), overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(text(row.get(column, ""))) for column in columns))
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(drawn)
        return
    wide = Console(highlight=False, width=_WIDE)
    with wide.capture() as captured:
        wide.print(drawn)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def text(value: Any) -> str:
    """A cell: lists joined by commas, no None."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(text, value))
    if isinstance(value, Mapping):
        return ",".join(f"{key}={text(item)}" for key, item in value.items())
    return "" if value is None else str(value)


def flat(data: Any, prefix: str = "") -> Iterable[dict[str, Any]]:
    """Nested objects as rows of ``name`` (a dotted path) and ``value``."""
    if isinstance(data, Mapping) and data:
        for key, value in data.items():
            yield from flat(value, f"{prefix}.{key}".lstrip("."))
    elif isinstance(data, list) and any(isinstance(item, Mapping | list) for item in data):
        for index, value in enumerate(data):
            yield from flat(value, f"{prefix}[{index}]")
    else:
        yield {"name": prefix, "value": data}
