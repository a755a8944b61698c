"""From a resource of Envoy's back to the objects that it was made from, as a status names them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from gateway_translator.ir import (
    Backends,
    FilterChain,
    Forward,
    HttpAction,
    HttpHandler,
    Listener,
    ObjectRef,
    Snapshot,
)
from xds_server.gateway import tls
from xds_server.gateway.listeners import HTTP3_SUFFIX
from xds_server.gateway.names import named, virtual_host_name
from xds_server.resources import (
    CLUSTER_TYPE,
    LISTENER_TYPE,
    ROUTE_TYPE,
    SECRET_TYPE,
    VIRTUAL_HOST_TYPE,
)

Resource = tuple[str, str]
"""Type URL and name."""


def origins(resource: Resource, snapshot: Snapshot) -> tuple[ObjectRef, ...]:
    """Sections of Gateways and ListenerSets, rules of routes, each once; none for a resource that
    is no Gateway's. What it costs grows with everything that is served."""
    type_url, name = resource
    find = _FINDERS.get(type_url)
    return tuple(dict.fromkeys(find(name, snapshot))) if find else ()


def _of_listener(name: str, snapshot: Snapshot) -> Iterator[ObjectRef]:
    plain = name.removesuffix(HTTP3_SUFFIX)
    for each in snapshot.listeners.values():
        if named(each.name) in (name, plain):
            yield from _sections(each.chains)


def _of_table(name: str, snapshot: Snapshot) -> Iterator[ObjectRef]:
    def serves(chain: FilterChain) -> bool:
        return isinstance(chain.handler, HttpHandler) and named(chain.handler.table) == name

    yield from _sections(_chains(snapshot.listeners.values(), serves))


def _of_virtual_host(name: str, snapshot: Snapshot) -> Iterator[ObjectRef]:
    for (table, hostname), host in snapshot.virtual_hosts.items():
        if virtual_host_name(table, hostname) == name:
            for route in host.routes:
                yield route.origin


def _of_cluster(name: str, snapshot: Snapshot) -> Iterator[ObjectRef]:
    for host in snapshot.virtual_hosts.values():
        for route in host.routes:
            if any(named(each) == name for each in _clusters(route.action)):
                yield route.origin
    for listener in snapshot.listeners.values():
        for chain in listener.chains:
            handler = chain.handler
            if not isinstance(handler, Forward) or handler.origin is None:
                continue
            if any(named(each) == name for each in _chosen(handler.backends)):
                yield handler.origin


def _of_secret(name: str, snapshot: Snapshot) -> Iterator[ObjectRef]:
    def shows(chain: FilterChain) -> bool:
        if chain.tls is None:
            return False
        trust = chain.tls.client and tls.trust_name(chain.tls.client.trust)
        return name == trust or name in map(tls.certificate_name, chain.tls.certificates)

    yield from _sections(_chains(snapshot.listeners.values(), shows))
    for cluster in snapshot.clusters.values():
        if cluster.tls is None:
            continue
        trust, certificate = cluster.tls.trust, cluster.tls.client_certificate
        if name in (tls.trust_name(trust), tls.certificate_name(certificate)):
            yield from _of_cluster(named(cluster.name), snapshot)


def _chains(
    listeners: Iterable[Listener], wanted: Callable[[FilterChain], bool]
) -> Iterator[FilterChain]:
    return (chain for each in listeners for chain in each.chains if wanted(chain))


def _sections(chains: Iterable[FilterChain]) -> Iterator[ObjectRef]:
    for chain in chains:
        yield from chain.origins


def _clusters(action: HttpAction) -> Iterator[str]:
    yield from _chosen(action.backends)
    yield from (each.cluster for each in action.mirrors)
    if action.auth:
        yield action.auth.cluster


def _chosen(backends: Backends) -> Iterator[str]:
    return (each.cluster for each in backends.valid)


_FINDERS = {
    LISTENER_TYPE: _of_listener,
    ROUTE_TYPE: _of_table,
    VIRTUAL_HOST_TYPE: _of_virtual_host,
    CLUSTER_TYPE: _of_cluster,
    SECRET_TYPE: _of_secret,
}
