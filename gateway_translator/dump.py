"""The IR as plain data, for people and for golden files: defaults left out, key material hidden."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any

from gateway_translator.ir import ObjectRef, Snapshot


def dump(value: Any) -> Any:
    """Lists, dicts, text and numbers. Fields that are not for repr show their size alone."""
    if isinstance(value, ObjectRef):
        return str(value)
    if isinstance(value, enum.Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: dump(found) if field.repr else f"<{len(found)} bytes>"
            for field in dataclasses.fields(value)
            if not _is_default(field, found := getattr(value, field.name))
        }
    if isinstance(value, Mapping):
        return {str(key): dump(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [dump(item) for item in value]
    return value


def dump_snapshot(snapshot: Snapshot) -> dict[str, Any]:
    """By name, sorted; virtual hosts by table, then hostname; what is empty is left out."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(snapshot):
        items: Mapping[Any, Any] = getattr(snapshot, field.name)
        if field.name == "virtual_hosts":
            tables: dict[str, dict[str, Any]] = {}
            for (table, hostname), host in sorted(items.items()):
                tables.setdefault(table, {})[hostname] = _without(dump(host), "hostname")
            found[field.name] = tables
        else:
            found[field.name] = {
                name: _without(dump(item), "name") for name, item in sorted(items.items())
            }
    return {name: items for name, items in found.items() if items}


def _without(item: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in item.items() if key != name}


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    if field.default is not dataclasses.MISSING:
        return bool(value == field.default)
    if field.default_factory is not dataclasses.MISSING:
        return bool(value == field.default_factory())
    return False
