"""What changed in the IR, as what changed among Envoy's resources."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from google.protobuf.message import Message

from gateway_translator.ir import Cluster, Delta, Listener, MeshFrontend
from xds_server.gateway import clusters, tls
from xds_server.gateway.listeners import listeners
from xds_server.gateway.manager import route_configuration, virtual_host
from xds_server.gateway.mesh import mesh_listeners
from xds_server.gateway.names import named, virtual_host_name
from xds_server.gateway.ports import ProxyPorts
from xds_server.resources import (
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    SECRET_TYPE,
    VIRTUAL_HOST_TYPE,
)

_Thing = TypeVar("_Thing")
Changes = dict[str, dict[str, Message | None]]


class Renderer:
    """``sources``: addresses that backends see, see :func:`clusters.cluster`. ``ports``: those of
    listeners of the mesh; what has none is given one.

    Keeps no more than which listeners each of the IR's has become.
    """

    def __init__(self, sources: Sequence[str] = (), ports: ProxyPorts | None = None) -> None:
        self._sources = sources
        self._ports = ports or ProxyPorts()
        self._listeners: dict[tuple[type, str], frozenset[str]] = {}

    def leave_from(self, sources: Sequence[str]) -> None:
        """Of clusters that are rendered from now on."""
        self._sources = sources

    def render(self, delta: Delta) -> Changes:
        """As :meth:`xds_server.server.XdsServer.update_resources` takes it."""
        return {
            SECRET_TYPE: _each(delta.certificates, tls.certificate_name, tls.certificate_secret)
            | _each(delta.trust, tls.trust_name, tls.trust_secret),
            CLUSTER_TYPE: _each(delta.clusters, named, self._cluster),
            ENDPOINT_TYPE: _each(delta.endpoints, named, clusters.endpoints),
            LISTENER_TYPE: self._rendered_listeners(delta),
            ROUTE_TYPE: _each(delta.tables, named, route_configuration),
            VIRTUAL_HOST_TYPE: {
                virtual_host_name(table, hostname): virtual_host(table, host) if host else None
                for (table, hostname), host in delta.virtual_hosts.items()
            },
        }

    def _cluster(self, made: Cluster) -> Message:
        return clusters.cluster(made, self._sources)

    def _rendered_listeners(self, delta: Delta) -> dict[str, Message | None]:
        changed: dict[str, Message | None] = {}
        for name, made in delta.listeners.items():
            changed |= self._in_place((Listener, name), listeners(made) if made else {})
        for name, frontend in delta.mesh.items():
            now = mesh_listeners(frontend, self._ports) if frontend else {}
            changed |= self._in_place((MeshFrontend, name), now)
        for name in [name for name, message in changed.items() if message is None]:
            self._ports.give_back(name)
        return changed

    def _in_place(
        self, of: tuple[type, str], now: Mapping[str, Message]
    ) -> dict[str, Message | None]:
        """In place of those that it had become before."""
        gone = dict.fromkeys(self._listeners.get(of, frozenset()) - now.keys())
        self._listeners[of] = frozenset(now)
        return {**gone, **now}


def _each(
    things: Mapping[str, _Thing | None],
    name: Callable[[str], str],
    make: Callable[[_Thing], Message],
) -> dict[str, Message | None]:
    return {name(key): make(thing) if thing else None for key, thing in things.items()}
