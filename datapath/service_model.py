"""Services and their EndpointSlices as one table, frontend -> backends. Pure.

Which endpoints are chosen is as kube-proxy has it (KEP-1669: terminating ones that still serve, if
no other is ready).
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

from datapath.codec import Address
from datapath.service_manifests import (
    Endpoint,
    Manifest,
    Port,
    Service,
    ServiceName,
    Slice,
    name_of,
    parse,
)
from policy_engine.model import Protocol


class Frontend(NamedTuple):
    address: Address
    port: int
    protocol: Protocol


class Backend(NamedTuple):
    address: Address
    port: int


@dataclass(frozen=True, slots=True)
class ServicePort:
    """Where connections to one frontend go; none in ``backends`` means they are refused.

    ``draining`` ones keep the flows that they have. ``affinity_seconds`` is 0 without affinity.
    """

    backends: tuple[Backend, ...] = ()
    draining: tuple[Backend, ...] = ()
    affinity_seconds: int = 0


ServiceTable = dict[Frontend, ServicePort]


class ServiceModel:
    """The table of one node, kept by changes; a change recomputes its own Service only."""

    def __init__(self, node: str = "") -> None:
        """``node`` is by whose name internalTrafficPolicy Local chooses."""
        self.table: ServiceTable = {}
        self._node = node
        self._services: dict[ServiceName, Service] = {}
        self._slices: dict[ServiceName, dict[str, Slice]] = {}
        self._service_of_slice: dict[tuple[str, str], ServiceName] = {}
        # An address may go from one Service to another before we hear that the first one went.
        self._claims: dict[Frontend, dict[ServiceName, ServicePort]] = {}
        self._frontends: dict[ServiceName, set[Frontend]] = {}

    def upsert(self, manifest: Manifest) -> set[Frontend]:
        """Frontends whose entry changed, came or went.

        ``manifest`` is a Service or an EndpointSlice. Raises InvalidServiceError and changes
        nothing then.
        """
        name, made = name_of(manifest), parse(manifest)
        if isinstance(made, Service):
            self._services[name] = made
            return self._recompute(name)
        changed: set[Frontend] = set()
        if made is None or self._service_of_slice.get(name) != made.service:
            changed = self._delete_slice(name)  # it may have belonged to another one
        if made:
            self._service_of_slice[name] = made.service
            self._slices.setdefault(made.service, {})[name[1]] = made
            changed |= self._recompute(made.service)
        return changed

    def delete(self, manifest: Manifest) -> set[Frontend]:
        """As :meth:`upsert`; kind and name are enough. One that is not known is no error."""
        name = name_of(manifest)
        if manifest.get("kind") != "Service":
            return self._delete_slice(name)
        self._services.pop(name, None)
        return self._recompute(name)

    def select(self, frontends: Iterable[Frontend]) -> dict[Frontend, ServicePort | None]:
        """Their entries; None for one that went."""
        return {frontend: self.table.get(frontend) for frontend in frontends}

    def _delete_slice(self, name: tuple[str, str]) -> set[Frontend]:
        service = self._service_of_slice.pop(name, None)
        if service is None:
            return set()
        slices = self._slices[service]
        del slices[name[1]]
        if not slices:
            del self._slices[service]
        return self._recompute(service)

    def _recompute(self, name: ServiceName) -> set[Frontend]:
        service = self._services.get(name)
        wanted: ServiceTable = {}
        if service:
            endpoints = self._endpoints_of(name, service)
            for address in service.addresses:
                for port in service.ports:
                    frontend = Frontend(address, port.number, port.protocol)
                    wanted[frontend] = _entry(service, endpoints, address, port)
        frontends = self._frontends.pop(name, set()) | wanted.keys()
        if wanted:
            self._frontends[name] = set(wanted)
        before = {frontend: self.table.get(frontend) for frontend in frontends}
        for frontend in frontends:
            self._claim(frontend, name, wanted.get(frontend))
        return {frontend for frontend in frontends if self.table.get(frontend) != before[frontend]}

    def _endpoints_of(
        self, name: ServiceName, service: Service
    ) -> list[tuple[tuple[Port, ...], Endpoint]]:
        return [
            (each.ports, endpoint)
            for each in self._slices.get(name, {}).values()
            for endpoint in each.endpoints
            if not service.local or endpoint.node == self._node
        ]

    def _claim(self, frontend: Frontend, name: ServiceName, entry: ServicePort | None) -> None:
        """Whoever claimed a frontend first has it."""
        claims = self._claims.setdefault(frontend, {})
        if entry is None:
            claims.pop(name, None)
        else:
            claims[name] = entry
        if claims:
            self.table[frontend] = next(iter(claims.values()))
        else:
            del self._claims[frontend]
            self.table.pop(frontend, None)


def compile_services(
    services: Iterable[Manifest],
    endpoint_slices: Iterable[Manifest],
    node: str = "",
) -> ServiceTable:
    """The whole table at once. Raises InvalidServiceError."""
    model = ServiceModel(node)
    for manifest in (*services, *endpoint_slices):
        model.upsert(manifest)
    return model.table


def _entry(
    service: Service,
    endpoints: Iterable[tuple[tuple[Port, ...], Endpoint]],
    address: Address,
    port: Port,
) -> ServicePort:
    ready: set[Backend] = set()
    draining: set[Backend] = set()
    for ports, endpoint in endpoints:
        backends = {
            Backend(own, target.number)
            for own in endpoint.addresses
            if own.version == address.version
            for target in ports
            if (target.name, target.protocol) == (port.name, port.protocol)
        }
        if endpoint.ready:
            ready |= backends
        elif endpoint.serving and endpoint.terminating:
            draining |= backends
    chosen, kept = (ready, draining - ready) if ready else (draining, set())
    return ServicePort(_sorted(chosen), _sorted(kept), service.affinity_seconds)


def _sorted(backends: AbstractSet[Backend]) -> tuple[Backend, ...]:
    return tuple(sorted(backends, key=lambda each: (each.address.packed, each.port)))
