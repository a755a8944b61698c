"""The translator of Gateways, fed by a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog

from gateway_translator.gateways import Addresses
from gateway_translator.pools import Allocator, BadPoolError, parse_pool
from gateway_translator.translator import CONTROLLER, Output, Translator
from kube_store.gateway_kinds import KINDS, POOL, REFERRED_KINDS
from kube_store.resource import ResourceKey
from kube_store.store import Change, ChangeType, Store

log = structlog.get_logger(__name__)

Manifest = dict[str, Any]
Key = tuple[str, str, str]
"""Kind, namespace (empty for cluster-scoped kinds), name."""

_CONCERNED_BY_ALL = ("GatewayClass", POOL)  # a change may give every Gateway other addresses


def assigned(gateway: Mapping[str, Any]) -> Addresses:
    """Those that the operator has given it."""
    status = gateway.get("status") or {}
    return Addresses(tuple(each["value"] for each in status.get("addresses") or ()))


class Assigner:
    """Gives each Gateway its addresses: the operator's work, or that of a node by itself."""

    def __init__(self, store: Store, allocator: Allocator) -> None:
        self._store, self._allocator = store, allocator

    def __call__(self, gateway: Mapping[str, Any]) -> Addresses:
        metadata, spec = gateway["metadata"], gateway.get("spec") or {}
        owner = (metadata.get("namespace") or "default", metadata["name"])
        if not self._is_ours(spec.get("gatewayClassName", "")):
            self._allocator.release(owner)
            return Addresses()
        asked = [each.get("value") or "" for each in spec.get("addresses") or ()]
        had = assigned(gateway).assigned
        labels = metadata.get("labels") or {}
        return Addresses(*self._allocator.assign(owner, asked, had, labels))

    def gone(self, namespace: str, name: str) -> None:
        self._allocator.release((namespace, name))

    def set_pool(self, name: str, manifest: Mapping[str, Any] | None) -> None:
        """One that cannot be read gives nothing, and is said."""
        try:
            self._allocator.set_pool(name, parse_pool(manifest) if manifest else None)
        except BadPoolError as error:
            self._allocator.set_pool(name, None)
            log.error("pool left out", pool=name, error=str(error))

    def _is_ours(self, class_name: str) -> bool:
        found = self._store.get(ResourceKey("GatewayClass", "", class_name))
        spec = (found.manifest.get("spec") or {}) if found else {}
        return bool(spec.get("controllerName") == CONTROLLER)


class GatewayObjects:
    """``addresses`` says what a Gateway has. What is taken is translated by :meth:`settle`.

    ``changed`` is called when there is something to settle.
    """

    def __init__(
        self,
        store: Store,
        addresses: Callable[[Mapping[str, Any]], Addresses],
        changed: Callable[[], None],
    ) -> None:
        self._store, self._addresses, self._changed = store, addresses, changed
        self._pending: dict[Key, Manifest | None] = {}
        self.translator = Translator()
        for resource in store.list():
            self._note(Change(ChangeType.ADDED, resource))
        store.subscribe(self._take)

    def put(self, key: Key, manifest: Manifest | None) -> None:
        """An object that no source has; None: it is gone."""
        self._pending[key] = manifest
        self._changed()

    def settle(self) -> list[Output]:
        """What followed from all that was taken since the last time."""
        pending, self._pending = self._pending, {}
        if not pending:
            return []
        outputs = [
            self.translator.set_addresses(namespace, name, addresses)
            for (namespace, name), addresses in self._readdressed(pending).items()
        ]
        upserts = [manifest for manifest in pending.values() if manifest is not None]
        deletes = [key for key, manifest in pending.items() if manifest is None]
        return [*outputs, self.translator.apply(upserts, deletes)]

    def _take(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self._note(change)
        if self._pending:
            self._changed()

    def _note(self, change: Change) -> None:
        """Kinds that Gateways have nothing to do with are no error."""
        key, manifest = change.resource.key, change.resource.manifest
        gone = change.type is ChangeType.DELETED
        if key.kind == POOL and isinstance(self._addresses, Assigner):
            self._addresses.set_pool(key.name, None if gone else manifest)
        elif key.kind not in KINDS and key.kind not in REFERRED_KINDS:
            return
        self._pending[key.kind, key.namespace, key.name] = None if gone else manifest

    def _readdressed(self, pending: Mapping[Key, Any]) -> dict[tuple[str, str], Addresses]:
        found = {}
        everyone = any(kind in _CONCERNED_BY_ALL for kind, _, _ in pending)
        known = self._store.list("Gateway") if everyone else []
        # Who has an address keeps it, before others are given any.
        for resource in sorted(known, key=lambda each: not assigned(each.manifest).assigned):
            found[resource.key.namespace, resource.key.name] = self._addresses(resource.manifest)
        for kind, namespace, name in pending:
            if kind != "Gateway" or (namespace, name) in found:
                continue
            manifest = pending[kind, namespace, name]
            if manifest is not None:
                found[namespace, name] = self._addresses(manifest)
            elif isinstance(self._addresses, Assigner):
                self._addresses.gone(namespace, name)
        return found
