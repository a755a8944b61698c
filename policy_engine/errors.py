"""Errors about an object are values, collected all at once, each with field and remedy."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")

RegexError = Callable[[str], str | None]
"""What is wrong with a regular expression, None if nothing: the module's own compiler says it."""


@dataclass(frozen=True, slots=True)
class FieldError:
    """``field`` is a path such as ``spec.ingress[0].toPorts[0].ports[0].port``."""

    field: str
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" + (f"; {self.remedy}" if self.remedy else "")


class Errors(list[FieldError]):
    """Collects errors while an object is read; each reader returns a usable value or None."""

    def add(self, field: str, message: str, remedy: str = "") -> None:
        self.append(FieldError(field, message, remedy))

    def typed(self, value: Any, kind: type[T], field: str) -> T | None:
        """``value`` if it is a ``kind`` (a bool is no int)."""
        if isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
            return value
        names = {dict: "an object", list: "a list", str: "a string", int: "an integer"}
        names[bool] = "true or false"
        self.add(field, f"{names[kind]} is required, found {value!r}", _quote_hint(value, kind))
        return None

    def items(self, value: Any, field: str) -> list[tuple[str, Any]]:
        """(path, item) of a list; an error and nothing otherwise."""
        items = self.typed(value, list, field)
        return [(f"{field}[{index}]", item) for index, item in enumerate(items or ())]

    def fields(
        self, value: Any, field: str, known: Iterable[str], refused: Iterable[str] = ()
    ) -> dict[str, Any]:
        """The known fields of an object. Others are errors: refused by name, or unknown."""
        known, refused = tuple(known), frozenset(refused)
        mapping = self.typed(value, dict, field) or {}
        for name in mapping:
            path = f"{field}.{name}".lstrip(".")
            if name in refused:
                self.add(path, "known, not enforced by this version", "remove the field")
            elif name not in known:
                close = difflib.get_close_matches(str(name), [*known, *refused], n=1)
                hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
                self.add(path, "unknown field", hint)
        return {name: mapping[name] for name in known if name in mapping}


def _quote_hint(value: Any, kind: type) -> str:
    return "put it in quotes" if kind is str and isinstance(value, int | float) else ""
