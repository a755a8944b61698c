"""Statuses of the Gateway API's objects, as the translator says them, written to the API server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from kube_store.gateway_kinds import STATUS_KINDS
from kube_store.resource import ResourceKey, plural
from kube_store.status import StatusTarget, StatusWriter
from kube_store.store import Store

Status = dict[str, Any]
Key = tuple[str, str, str]

# Lists that several controllers write to, each its own entries.
_SHARED = ("parents", "ancestors")


class GatewayStatuses:
    """What an object has already is not written."""

    def __init__(self, store: Store, writer: StatusWriter, controller: str) -> None:
        self._store, self._writer, self._controller = store, writer, controller

    def put(self, key: Key, status: Status | None) -> None:
        """``status`` without times, and without what other controllers say; None: we say nothing
        of it any more."""
        target = StatusTarget(STATUS_KINDS[key[0]], plural(key[0]), key[1], key[2])
        # What it has is what counts, not what was written once: others write too.
        self._writer.forget(target)
        resource = self._store.get(ResourceKey(*key))
        if resource is None:
            return
        held = resource.manifest.get("status") or {}
        if status is None:
            status = {name: [] for name in _SHARED if held.get(name)}
        merged = {name: self._merged(name, value, held) for name, value in status.items()}
        if any(held.get(name) != value for name, value in merged.items()):
            self._writer.put(target, merged)

    def _merged(self, name: str, value: Any, held: Mapping[str, Any]) -> Any:
        before = held.get(name)
        if name in _SHARED:
            foreign = [e for e in before or () if e.get("controllerName") != self._controller]
            own = [e for e in before or () if e.get("controllerName") == self._controller]
            return foreign + [_timed(each, _same(each, own)) for each in value]
        if name == "listeners":
            return [_timed(each, _by_name(each, before or ())) for each in value]
        if name == "conditions":
            return _conditions(value, before or ())
        return value


def _timed(entry: Status, before: Mapping[str, Any]) -> Status:
    return {**entry, "conditions": _conditions(entry["conditions"], before.get("conditions") or ())}


def _conditions(conditions: Iterable[Status], before: Iterable[Mapping[str, Any]]) -> list[Status]:
    """With the time since when each has its status."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    since = {(c["type"], c["status"]): c.get("lastTransitionTime") for c in before}
    return [
        {**each, "lastTransitionTime": since.get((each["type"], each["status"])) or now}
        for each in conditions
    ]


def _same(entry: Status, held: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    reference = next(name for name in ("parentRef", "ancestorRef") if name in entry)
    return next((each for each in held if each.get(reference) == entry[reference]), {})


def _by_name(entry: Status, held: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    return next((each for each in held if each.get("name") == entry["name"]), {})
