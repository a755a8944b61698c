"""The translator of Gateways, fed by a store."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from gateway_translator.gateways import Addresses
from gateway_translator.translator import Output, Translator
from kube_store.gateway_addresses import AddressSource, Key, assigned, balanced
from kube_store.gateway_kinds import KINDS, POOL, REFERRED_KINDS
from kube_store.resource import ResourceKey
from kube_store.store import Change, ChangeType, Store

Manifest = dict[str, Any]

_CONCERNED_BY_ALL = ("GatewayClass", POOL)  # a change may give everybody other addresses


class GatewayObjects:
    """``addresses`` says what each Gateway and Ingress has. What is taken is translated by
    :meth:`settle`.

    ``changed`` is called when there is something to settle.
    """

    def __init__(self, store: Store, addresses: AddressSource, changed: Callable[[], None]) -> None:
        self._store, self._addresses, self._changed = store, addresses, changed
        self._pending: dict[Key, Manifest | None] = {}
        self._frontends: dict[Key, tuple[Key, ...]] = {}
        self._frontend_of: dict[Key, Key] = {}
        self._on_nodes: set[Key] = set()
        self.translator = Translator()
        for resource in store.list():
            self._note(Change(ChangeType.ADDED, resource))
        store.subscribe(self._take)

    def put(self, key: Key, manifest: Manifest | None) -> None:
        """An object that no source has; None: it is gone."""
        self._pending[key] = manifest
        self._changed()

    def pending(self) -> Collection[Key]:
        """Of what :meth:`settle` will translate."""
        return self._pending.keys()

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
        outputs.append(applied := self.translator.apply(upserts, deletes))
        outputs += [
            self.translator.set_addresses(key[1], key[2], self._moved(key, bool(on_nodes)))
            for key, on_nodes in applied.on_nodes.items()
        ]
        outputs += [
            self.translator.set_addresses(namespace, name, addresses, kind)
            for (kind, namespace, name), addresses in self._frontends_readdressed(
                pending, applied.frontends
            ).items()
        ]
        return outputs

    def _take(self, changes: Iterable[Change]) -> None:
        for change in changes:
            self._note(change)
        if self._pending:
            self._changed()

    def _note(self, change: Change) -> None:
        """Kinds that Gateways have nothing to do with are no error."""
        key, manifest = change.resource.key, change.resource.manifest
        gone = change.type is ChangeType.DELETED
        if key.kind == POOL:
            self._addresses.set_pool(key.name, None if gone else manifest)
        elif key.kind not in KINDS and key.kind not in REFERRED_KINDS:
            return
        self._pending[key.kind, key.namespace, key.name] = None if gone else manifest

    def _readdressed(self, pending: Mapping[Key, Any]) -> dict[tuple[str, str], Addresses]:
        """Gateways, by namespace and name."""
        found = {}
        known = self._store.list("Gateway") if _concerns_all(pending) else []
        # Who has an address keeps it, before others are given any.
        for resource in sorted(known, key=lambda each: not assigned(each.manifest)):
            found[resource.key.namespace, resource.key.name] = self._of_gateway(resource.manifest)
        for kind, namespace, name in pending:
            if kind != "Gateway" or (namespace, name) in found:
                continue
            manifest = pending[kind, namespace, name]
            if manifest is not None:
                found[namespace, name] = self._of_gateway(manifest)
            else:
                self._addresses.gone((kind, namespace, name))
        return found

    def _of_gateway(self, manifest: Mapping[str, Any]) -> Addresses:
        metadata = manifest["metadata"]
        key = ("Gateway", metadata.get("namespace") or "default", metadata["name"])
        return Addresses() if key in self._on_nodes else self._addresses.gateway(manifest)

    def _moved(self, key: Key, on_nodes: bool) -> Addresses:
        """Of a Gateway that is served on nodes' addresses from now on, or on its own."""
        if on_nodes:
            self._on_nodes.add(key)
            self._addresses.gone(key)
            return Addresses()
        self._on_nodes.discard(key)
        found = self._store.get(ResourceKey(*key))
        return self._addresses.gateway(found.manifest) if found else Addresses()

    def _frontends_readdressed(
        self, pending: Mapping[Key, Any], changed: Mapping[Key, tuple[Key, ...] | None]
    ) -> dict[Key, Addresses]:
        """Frontends of Ingresses whose members or statuses changed; none where nobody is left."""
        found = {}
        for frontend, members in changed.items():
            for member in self._frontends.pop(frontend, ()):
                if self._frontend_of.get(member) == frontend:
                    del self._frontend_of[member]
            if members is None:
                self._addresses.gone(frontend)
                found[frontend] = Addresses()
            else:
                self._frontends[frontend] = members
                self._frontend_of |= dict.fromkeys(members, frontend)
        touched = {self._frontend_of[key] for key in pending if key in self._frontend_of}
        touched |= (changed.keys() | pending.keys()) & self._frontends.keys()
        if _concerns_all(pending):
            touched = set(self._frontends)
        for frontend in sorted(touched, key=self._has_no_address):
            found[frontend] = self._addresses.frontend(frontend, self._frontends[frontend])
        return found

    def _has_no_address(self, frontend: Key) -> tuple[bool, Key]:
        """As an order: who has an address keeps it, before others are given any."""
        return not balanced(self._store, self._frontends[frontend]), frontend


def _concerns_all(pending: Iterable[Key]) -> bool:
    return any(kind in _CONCERNED_BY_ALL for kind, _, _ in pending)
