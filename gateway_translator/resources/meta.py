"""What all objects have: their metadata, and how a manifest becomes a typed object."""

from __future__ import annotations

from typing import Any

import msgspec


class Struct(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """Base of all: immutable, fields as the API spells them, unknown fields left out."""


class Metadata(Struct, frozen=True):
    """``created`` is RFC 3339, so that it sorts as text; empty where it is unknown (a file)."""

    name: str
    namespace: str = ""
    generation: int = 0
    created: str = msgspec.field(name="creationTimestamp", default="")
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Object(Struct, frozen=True):
    kind: str
    metadata: Metadata

    @property
    def namespace(self) -> str:
        return self.metadata.namespace

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def key(self) -> Key:
        return (self.kind, self.metadata.namespace, self.metadata.name)

    @property
    def age(self) -> tuple[str, str]:
        """Sorts as precedence does: the oldest first, then by namespace/name."""
        meta = self.metadata
        return (meta.created, f"{meta.namespace}/{meta.name}")


Key = tuple[str, str, str]
"""(kind, namespace, name); the namespace of cluster-scoped kinds is empty."""


class LabelExpression(Struct, frozen=True):
    key: str
    operator: str
    values: tuple[str, ...] = ()


class LabelSelector(Struct, frozen=True):
    """Source: meta/v1 LabelSelector. Empty selects everything."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[LabelExpression, ...] = ()

    def matches(self, labels: dict[str, str]) -> bool:
        return all(labels.get(k) == v for k, v in self.match_labels.items()) and all(
            _holds(each, labels) for each in self.match_expressions
        )


def _holds(expression: LabelExpression, labels: dict[str, str]) -> bool:
    value = labels.get(expression.key)
    match expression.operator:
        case "In":
            return value is not None and value in expression.values
        case "NotIn":
            return value is None or value not in expression.values
        case "Exists":
            return value is not None
        case _:
            return value is None


def without_nulls(value: Any) -> Any:
    """A null field of a manifest is one that is not given."""
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [without_nulls(item) for item in value]
    return value
