"""From a proxy's active configuration to the ports on which it enforces, and why not. Pure.

What is not understood proves nothing: an unknown filter, a cluster that a request may name, a
destination that is computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from node_agent.proof import filters
from node_agent.proof.configuration import (
    Configuration,
    Json,
    chains,
    is_gateway,
    is_inbound,
    ports_of_endpoints,
    read,
    stays,
)
from policy_engine.model import Direction

# Where Istio's rules for packets send what comes in, and what goes out.
_CAUGHT = {Direction.INGRESS: "virtualInbound", Direction.EGRESS: "virtualOutbound"}
_TCP_PROXY = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy"
_MANAGER = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "envoy.extensions.filters.http.router.v3.Router"
_HTTP_OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_NOT_TO_CLUSTERS = ("redirect", "direct_response", "non_forwarding_action")
ANY_PORT = 0
# The proxy's own, behind what its bootstrap serves: no port of the application.
_OWN = frozenset({15000, 15020})


@dataclass(frozen=True, slots=True)
class Proof:
    """``lacking`` says why a direction's port is not enforced, by port; port 0 is all of them."""

    lacking: Mapping[tuple[Direction, int], str] = field(default_factory=dict)

    def why_not(self, direction: Direction, port: int) -> str:
        """ "" if it is proven; port 0 asks for ports of which nothing is said."""
        return self.lacking.get((direction, ANY_PORT)) or self.lacking.get((direction, port), "")


def nothing(why: str) -> Proof:
    """No port of either direction."""
    return Proof({(direction, ANY_PORT): why for direction in Direction})


def proven(proof: Proof) -> str:
    """Its directions, but for single ports: for people."""
    return ", ".join(d.name.lower() for d in Direction if not proof.why_not(d, ANY_PORT))


def lacking(proof: Proof) -> str:
    """Why it is no more than that: for people."""
    return "; ".join(
        f"{direction.name.lower()}{f' of port {port}' if port else ''}: {why}"
        for (direction, port), why in sorted(proof.lacking.items())
    )


def prove(dump: Json) -> Proof:
    """``dump`` is the answer of ``/config_dump``."""
    try:
        return Proof(_lacking(read(dump)))
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        return nothing(f"its configuration cannot be read: {error!r}")


def _lacking(config: Configuration) -> dict[tuple[Direction, int], str]:
    found: dict[tuple[Direction, int], str] = {}
    gateway = is_gateway(config)
    for direction, name in _CAUGHT.items():
        if not gateway and not any(each.get("name") == name for each in config.listeners):
            found[direction, ANY_PORT] = f"no listener {name}"
    if gateway:
        found[Direction.INGRESS, ANY_PORT] = "it is a gateway"
    for listener in config.listeners:
        # What comes in may leave again: an application can dial its own pod.
        directions = [Direction.EGRESS]
        if is_inbound(listener) and not gateway:
            directions.append(Direction.INGRESS)
        for chain, direction in itertools.product(chains(listener), directions):
            for clusters, why in _unguarded(config, chain, direction):
                at = f"listener {listener.get('name', '?')}, {_named(chain)}: {why}"
                for port in _ports(config, direction, chain, clusters):
                    found.setdefault((direction, port), at)
    return found


def _side(config: Configuration, direction: Direction) -> str:
    """What our filter is told there."""
    if direction is Direction.INGRESS:
        return "ingress"
    return "forward" if is_gateway(config) else "egress"


def _unguarded(
    config: Configuration, chain: Json, direction: Direction
) -> Iterator[tuple[list[str] | None, str]]:
    """Clusters that a chain reaches without our filter (None: any), and how."""
    *before, last = chain["filters"]
    match filters.type_of(last):
        case kind if kind == _TCP_PROXY:
            proxied = last["typed_config"]
            if not filters.judges_bytes(before, _side(config, direction)):
                yield _tcp_clusters(proxied), f"{filters.NETWORK} is not right before tcp_proxy"
        case kind if kind == _MANAGER:
            yield from _unguarded_http(config, last["typed_config"], direction)
        case kind:
            yield None, f"{last.get('name')} ({kind}) is not known"


def _unguarded_http(
    config: Configuration, manager: Json, direction: Direction
) -> Iterator[tuple[list[str] | None, str]]:
    router = manager["http_filters"][-1]
    if filters.type_of(router) != _ROUTER:
        yield None, f"{router.get('name')} is not known"
        return
    by_router = router["typed_config"].get("upstream_http_filters", [])
    routes = manager.get("route_config")
    if routes is None:
        wanted = manager.get("rds", {}).get("route_config_name", "")
        routes = config.routes.get(wanted)
        if routes is None:
            if "rds" not in manager:
                yield None, "its routes are not known"
            return  # none have come: nothing is answered but 404
    if _switched_off(routes):
        yield None, f"its routes switch {filters.HTTP} off"
    for name, why, mirrored in _reached(routes):
        if why:
            yield None, why
        elif name in config.clusters:
            own = config.clusters[name].get("typed_extension_protocol_options", {})
            upstream = own.get(_HTTP_OPTIONS, {}).get("http_filters")
            if not mirrored:  # a mirrored request does not meet the router's
                upstream = upstream or by_router
            if not filters.judges_requests(upstream or (), _side(config, direction)):
                yield [name], f"cluster {name}: {filters.HTTP} is not its last filter"


def _reached(routes: Json) -> Iterator[tuple[str, str, bool]]:
    """Clusters of a route configuration, or why they cannot be told; whether it is for a mirror."""
    for host in routes.get("virtual_hosts", ()):
        if "matcher" in host:
            yield "", f"virtual host {host.get('name')} has a matcher", False
        for route in host.get("routes", ()):
            if any(kind in route for kind in _NOT_TO_CLUSTERS):
                continue
            action = route.get("route", {})
            if any("connect_config" in each for each in action.get("upgrade_configs", ())):
                yield "", f"route {route.get('name', '?')} ends CONNECT", False
            if "cluster" in action:
                yield action["cluster"], "", False
            elif "weighted_clusters" in action:
                yield from _weighted(action["weighted_clusters"])
            else:
                yield "", f"route {route.get('name', '?')}: where it goes is not known", False
            for mirror in action.get("request_mirror_policies", ()):
                yield mirror.get("cluster", ""), "" if "cluster" in mirror else "a mirror", True


def _weighted(weighted: Json) -> Iterator[tuple[str, str, bool]]:
    for each in weighted["clusters"]:
        why = "" if "name" in each else "a weighted cluster of a header"
        yield each.get("name", ""), why, False


def _switched_off(routes: Json) -> bool:
    """Filters of routes are by name, at each level (``typed_per_filter_config``)."""
    levels: list[Any] = [routes]
    for host in routes.get("virtual_hosts", ()):
        levels += [host, *host.get("routes", ())]
    for route in levels[1:]:
        levels += route.get("route", {}).get("weighted_clusters", {}).get("clusters", ())
    return any(filters.HTTP in each.get("typed_per_filter_config", {}) for each in levels)


def _tcp_clusters(proxied: Json) -> list[str] | None:
    if "cluster" in proxied:
        return [proxied["cluster"]]
    if "weighted_clusters" in proxied:
        return [each["name"] for each in proxied["weighted_clusters"]["clusters"]]
    return None


def _ports(
    config: Configuration, direction: Direction, chain: Json, clusters: Iterable[str] | None
) -> set[int]:
    """Ports that are reached so. Backends of what goes out have any; what comes in keeps its port,
    or is sent to the one of an address that the cluster has."""
    if clusters is None:
        return {ANY_PORT}
    matched = chain.get("filter_chain_match", {}).get("destination_port", ANY_PORT)
    found: set[int] = set()
    for name in clusters:
        cluster = config.clusters.get(name)
        if cluster is None:
            continue  # connections to it fail
        if direction is Direction.EGRESS and stays(config, cluster):
            continue
        if cluster.get("type") == "STATIC":
            found |= set(ports_of_endpoints(cluster)) - _OWN
        elif direction is Direction.INGRESS and name.startswith("inbound|"):
            found |= {matched, int(name.split("|")[1])}
        else:
            found.add(matched if direction is Direction.INGRESS else ANY_PORT)
    return found


def _named(chain: Json) -> str:
    return f"chain {chain.get('name') or chain.get('filter_chain_match') or 'without a name'}"
