"""Whom to suspect when Envoy refuses a resource: what is new in it, before all that it has."""

from __future__ import annotations

from collections.abc import Callable

from gateway_translator.ir import Delta, Listener, ObjectRef, Snapshot, VirtualHost
from xds_server.gateway.names import named, virtual_host_name
from xds_server.gateway.origins import Resource, origins
from xds_server.resources import LISTENER_TYPE, VIRTUAL_HOST_TYPE


class Suspects:
    """Keeps the form that Envoy took last of each listener and virtual host."""

    def __init__(self, accepted: Callable[[str, str], bool]) -> None:
        """``accepted``: whether Envoy took what it was sent last of a resource."""
        self._accepted = accepted
        self._latest: dict[Resource, Listener | VirtualHost] = {}
        self._taken: dict[Resource, Listener | VirtualHost] = {}

    def note(self, delta: Delta) -> None:
        """What is about to be sent."""
        for name, listener in delta.listeners.items():
            self._note((LISTENER_TYPE, named(name)), listener)
        for (table, hostname), host in delta.virtual_hosts.items():
            self._note((VIRTUAL_HOST_TYPE, virtual_host_name(table, hostname)), host)

    def of(self, resource: Resource, snapshot: Snapshot) -> tuple[ObjectRef, ...]:
        """Nobody, of a resource that is not Gateways'."""
        latest, taken = self._latest.get(resource), self._taken.get(resource)
        found: tuple[ObjectRef, ...] = ()
        if isinstance(latest, VirtualHost) and isinstance(taken, VirtualHost):
            known = set(taken.routes)
            found = tuple(route.origin for route in latest.routes if route not in known)
        elif isinstance(latest, Listener) and isinstance(taken, Listener):
            chains = [chain for chain in latest.chains if chain not in taken.chains]
            found = tuple(origin for chain in chains for origin in chain.origins)
        return tuple(dict.fromkeys(found)) or origins(resource, snapshot)

    def _note(self, resource: Resource, form: Listener | VirtualHost | None) -> None:
        before = self._latest.pop(resource, None)
        if form is None:
            self._taken.pop(resource, None)
            return
        if before is not None and self._accepted(*resource):
            self._taken[resource] = before
        self._latest[resource] = form
