"""Services as policy knows them: what ``toServices`` may mean, from the store."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

import structlog

from kube_store.store import Change, ChangeType
from policy_engine.identity import IdentitiesExhausted, Prefix
from policy_engine.repository import PolicyRepository

log = structlog.get_logger(__name__)

KINDS = frozenset({"Service", "EndpointSlice"})
_OF_SERVICE = "kubernetes.io/service-name"

Manifest = Mapping[str, Any]
Name = tuple[str, str]


class ServicePeers:
    """Slices count for Services without a selector only; those of others are merely kept."""

    def __init__(self, repository: PolicyRepository) -> None:
        self._repository = repository
        self._services: dict[Name, Manifest] = {}
        self._slices: dict[Name, dict[str, Manifest]] = {}
        self._service_of: dict[Name, Name] = {}  # by slice
        self._addresses: dict[Name, frozenset[Prefix]] = {}  # by slice, once they were asked for

    def take(self, change: Change) -> set[int]:
        """A change of one of KINDS; the endpoints that it concerns."""
        key, manifest = change.resource.key, change.resource.manifest
        name = (key.namespace, key.name)
        gone = change.type is ChangeType.DELETED
        if key.kind == "Service":
            self._services.pop(name, None)
            if gone:
                return self._repository.delete_service(*name)
            self._services[name] = manifest
            return self._tell(name)
        concerned = set()
        self._addresses.pop(name, None)
        if (before := self._service_of.pop(name, None)) is not None:
            del self._slices[before][key.name]
            if not self._slices[before]:
                del self._slices[before]
            concerned.add(before)
        service = (manifest["metadata"].get("labels") or {}).get(_OF_SERVICE)
        if service and not gone:
            after = self._service_of[name] = (key.namespace, service)
            self._slices.setdefault(after, {})[key.name] = manifest
            concerned.add(after)
        return set().union(*(self._tell(each) for each in concerned if self._by_slices(each)))

    def _by_slices(self, name: Name) -> bool:
        return name in self._services and not _selector(self._services[name])

    def _tell(self, name: Name) -> set[int]:
        manifest = self._services[name]
        labels = manifest["metadata"].get("labels") or {}
        selector = _selector(manifest)
        backends: set[Prefix] = set()
        if not selector:
            for each, found in self._slices.get(name, {}).items():
                backends |= self._addresses_of((name[0], each), found)
        try:
            return self._repository.upsert_service(*name, labels, selector, frozenset(backends))
        except IdentitiesExhausted as error:
            log.error("backends of a Service are no peers yet", service=name, error=str(error))
            return set()

    def _addresses_of(self, name: Name, endpoint_slice: Manifest) -> frozenset[Prefix]:
        """Read once: of a Service's slices one changes at a time."""
        if name not in self._addresses:
            self._addresses[name] = frozenset(_addresses(endpoint_slice))
        return self._addresses[name]


def _selector(service: Manifest) -> dict[str, str]:
    """The API ignores that of an ExternalName."""
    spec = service.get("spec") or {}
    return {} if spec.get("type") == "ExternalName" else spec.get("selector") or {}


def _addresses(endpoint_slice: Manifest) -> set[Prefix]:
    """Ready or not; names of hosts are no addresses."""
    if endpoint_slice.get("addressType") not in {"IPv4", "IPv6"}:
        return set()
    made = set()
    for endpoint in endpoint_slice.get("endpoints") or []:
        for text in endpoint.get("addresses") or []:
            try:
                made.add(ip_network(ip_address(text)))
            except ValueError:
                log.error("an endpoint's address is none", address=text)
    return made
