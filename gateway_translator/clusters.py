"""Clusters and endpoints that routes use now: what nobody uses is not there."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from ipaddress import ip_address

from gateway_translator.ir import Cluster, Endpoint, EndpointGroup, EndpointSet, TrustBundle
from gateway_translator.resources.core import EndpointSlice, ServicePort, SliceEndpoint
from gateway_translator.resources.meta import Key
from gateway_translator.tracked import Tracked
from gateway_translator.world import World

UNIT = "EndpointSet"


class Clusters:
    """A user is whatever names clusters: a route, or an Ingress."""

    def __init__(self, world: World) -> None:
        self.clusters: Tracked[str, Cluster] = Tracked()
        self.endpoints: Tracked[str, EndpointSet] = Tracked()
        self.bundles: Tracked[str, TrustBundle] = Tracked()
        self._world = world
        self._used: dict[Key, frozenset[str]] = {}
        self._users: defaultdict[str, set[Key]] = defaultdict(set)
        self._groups: dict[str, dict[Key, tuple[EndpointSlice, bool, EndpointGroup]]] = {}

    def use(
        self, user: Key, clusters: Mapping[str, Cluster], bundles: Mapping[str, TrustBundle]
    ) -> None:
        """Everything that it uses from now on."""
        before = self._used.pop(user, frozenset())
        now = frozenset(clusters) | {f"trust {name}" for name in bundles}
        for name in before - now:
            self._users[name].discard(user)
            if not self._users[name]:
                del self._users[name]
                self._drop(name)
        for name in now - before:
            self._users[name].add(user)
        for name, bundle in bundles.items():
            self.bundles.put(name, bundle)
        for name, cluster in clusters.items():
            known = name in self.clusters.current
            self.clusters.put(name, cluster)
            if not known:
                self.refresh(name)
        if now:
            self._used[user] = now

    def refresh(self, name: str) -> None:
        """Reads the endpoints of a cluster anew; slices that did not change keep their groups."""
        cluster = self.clusters.current.get(name)
        if cluster is None:
            return
        origin = cluster.origin
        reader = self._world.reader((UNIT, "", name))
        service = reader.service(origin.namespace, origin.name)
        port = service.port(cluster.port) if service else None
        slices = reader.group(("slices", origin.namespace, origin.name), EndpointSlice)
        if port is None:
            self.endpoints.put(name, EndpointSet(name, transparent=cluster.transparent))
            return
        slices = sorted(
            (s for s in slices if s.address_type in {"IPv4", "IPv6"}), key=lambda s: s.name
        )
        ready = any(e.conditions.ready for s in slices for e in s.endpoints)
        kept = self._groups.get(name, {})
        fresh: dict[Key, tuple[EndpointSlice, bool, EndpointGroup]] = {}
        for each in slices:
            known = kept.get(each.key)
            if known is None or known[0] is not each or known[1] != ready:
                known = (each, ready, _group(each, port, ready))
            fresh[each.key] = known
        self._groups[name] = fresh
        groups = tuple(group for _, _, group in fresh.values() if group.endpoints)
        self.endpoints.put(name, EndpointSet(name, groups, cluster.transparent))

    def _drop(self, name: str) -> None:
        if name.startswith("trust "):
            self.bundles.drop(name[len("trust ") :])
            return
        self.clusters.drop(name)
        self._groups.pop(name, None)
        self._world.forget((UNIT, "", name))
        self.endpoints.drop(name)


def _group(found: EndpointSlice, port: ServicePort, ready: bool) -> EndpointGroup:
    numbers = [
        each.port
        for each in found.ports
        if (each.name, each.protocol) == (port.name, port.protocol) and each.port
    ]
    endpoints = [
        Endpoint(address, number, each.node_name, each.zone)
        for number in numbers
        for each in found.endpoints
        if (each.conditions.ready if ready else _serves(each))
        for address in each.addresses[:1]  # the API gives several no meaning
        if _is_ip(address)
    ]
    return EndpointGroup(f"{found.namespace}/{found.name}", tuple(sorted(endpoints)))


def _is_ip(address: str) -> bool:
    try:
        ip_address(address)
    except ValueError:
        return False
    return True


def _serves(endpoint: SliceEndpoint) -> bool:
    """Where none is ready, those that terminate and still answer are better than none."""
    conditions = endpoint.conditions
    return bool(conditions.serving) and conditions.terminating
