"""Where Gateways and Ingresses have their addresses from: an allocator here, or one elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any, Protocol

import structlog

from gateway_translator.gateways import Addresses
from gateway_translator.pools import Allocator, BadPoolError, parse_pool
from gateway_translator.translator import CONTROLLER
from kube_store.resource import ResourceKey
from kube_store.store import Store

log = structlog.get_logger(__name__)

Manifest = Mapping[str, Any]
Key = tuple[str, str, str]
"""Kind, namespace (empty for cluster-scoped kinds), name."""


class AddressSource(Protocol):
    """``frontend`` of Ingresses: one of them, or the IngressClass of those that share."""

    def gateway(self, manifest: Manifest) -> Addresses: ...
    def frontend(self, frontend: Key, members: Iterable[Key]) -> Addresses: ...
    def gone(self, owner: Key) -> None: ...
    def set_pool(self, name: str, manifest: Manifest | None) -> None: ...


def assigned(gateway: Manifest) -> tuple[str, ...]:
    """Those that a Gateway's status says; what is no IP address is left out."""
    status = gateway.get("status") or {}
    return _addresses(each.get("value") for each in status.get("addresses") or ())


class Assigned:
    """Those that the operator has given, as statuses say them."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def gateway(self, manifest: Manifest) -> Addresses:
        return Addresses(assigned(manifest))

    def frontend(self, _: Key, members: Iterable[Key]) -> Addresses:
        """Of Ingresses that share, the first that was told them has them for all."""
        return Addresses(balanced(self._store, members))

    def gone(self, owner: Key) -> None:
        """The operator's matter."""

    def set_pool(self, name: str, manifest: Manifest | None) -> None:
        """The operator's matter."""


class Assigner:
    """Gives them: the operator's work, or that of a node by itself."""

    def __init__(self, store: Store, allocator: Allocator) -> None:
        self._store, self._allocator = store, allocator

    def gateway(self, manifest: Manifest) -> Addresses:
        metadata, spec = manifest["metadata"], manifest.get("spec") or {}
        owner = ("Gateway", metadata.get("namespace") or "default", metadata["name"])
        if not self._is_ours(spec.get("gatewayClassName", "")):
            self._allocator.release(owner)
            return Addresses()
        asked = [each.get("value") or "" for each in spec.get("addresses") or ()]
        had, labels = assigned(manifest), metadata.get("labels") or {}
        return Addresses(*self._allocator.assign(owner, asked, had, labels))

    def frontend(self, frontend: Key, members: Iterable[Key]) -> Addresses:
        found = self._store.get(ResourceKey(*frontend))
        labels = (found.manifest["metadata"].get("labels") or {}) if found else {}
        had = balanced(self._store, members)
        return Addresses(*self._allocator.assign(frontend, (), had, labels))

    def gone(self, owner: Key) -> None:
        self._allocator.release(owner)

    def set_pool(self, name: str, manifest: Manifest | None) -> None:
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


def balanced(store: Store, ingresses: Iterable[Key]) -> tuple[str, ...]:
    """What the status of the first of them says that has addresses."""
    for key in ingresses:
        found = store.get(ResourceKey(*key))
        status = (found.manifest.get("status") or {}) if found else {}
        said = (status.get("loadBalancer") or {}).get("ingress") or ()
        if addresses := _addresses(each.get("ip") for each in said):
            return addresses
    return ()


def _addresses(texts: Iterable[Any]) -> tuple[str, ...]:
    return tuple(text for text in texts if isinstance(text, str) and _is_address(text))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
