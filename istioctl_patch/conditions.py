"""Conditions on a patch of an EnvoyFilter, which Python evaluates and the API server, as CEL. Pure.

Source: Kubernetes documentation, "CEL in Kubernetes: optional types". What a patch's value says is
Protobuf's JSON, whose fields have two spellings.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Path = tuple[str, ...]


class Condition(Protocol):
    def holds(self, patch: Mapping[str, Any]) -> bool:
        """``patch`` is one of ``spec.configPatches``."""

    def cel(self) -> str:
        """The same, of a variable ``p``."""


@dataclass(frozen=True, slots=True)
class OneOf:
    """A text that is one of these; ``default`` is what its absence means."""

    path: Path
    texts: tuple[str, ...]
    default: str = ""

    def holds(self, patch: Mapping[str, Any]) -> bool:
        return _found(patch, self.path, self.default) in self.texts

    def cel(self) -> str:
        return f"{_optional(self.path)}.orValue({_text(self.default)}) in {json.dumps(self.texts)}"


@dataclass(frozen=True, slots=True)
class Present:
    """A field that is there at all, however it is spelled."""

    path: Path

    def holds(self, patch: Mapping[str, Any]) -> bool:
        return any(_found(patch, path, _ABSENT) is not _ABSENT for path in _spellings(self.path))

    def cel(self) -> str:
        return _any(f"{_optional(path)}.hasValue()" for path in _spellings(self.path))


@dataclass(frozen=True, slots=True)
class Begins:
    """One of these texts, or a key of one of these mappings, begins so."""

    prefix: str
    texts: tuple[Path, ...]
    keys: tuple[Path, ...] = ()

    def holds(self, patch: Mapping[str, Any]) -> bool:
        said = [_found(patch, path, "") for path in self.texts]
        for path in self.keys:
            said += [key for each in _spellings(path) for key in _found(patch, each, ())]
        return any(str(each).startswith(self.prefix) for each in said)

    def cel(self) -> str:
        begins = f".startsWith({_text(self.prefix)})"
        texts = (f'{_optional(path)}.orValue(""){begins}' for path in self.texts)
        keys = (
            f"{_optional(path)}.orValue({{}}).exists(k, k{begins})"
            for each in self.keys
            for path in _spellings(each)
        )
        return _any([*texts, *keys])


_ABSENT = object()


def _found(value: Any, path: Path, default: Any) -> Any:
    for step in path:
        if not isinstance(value, Mapping) or step not in value:
            return default
        value = value[step]
    return value


def _spellings(path: Path) -> Iterator[Path]:
    """Field names with an underscore have a camel-cased twin."""
    yield from itertools.product(*(dict.fromkeys((step, _camel(step))) for step in path))


def _camel(step: str) -> str:
    first, *rest = step.split("_")
    return first + "".join(map(str.capitalize, rest)) if step.isidentifier() else step


def _optional(path: Path) -> str:
    steps = (f".?{each}" if each.isidentifier() else f"[?{_text(each)}]" for each in path)
    return "p" + "".join(steps)


def _any(expressions: Iterable[str]) -> str:
    return f"({' || '.join(expressions)})"


def _text(text: str) -> str:
    return json.dumps(text)
