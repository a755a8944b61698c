"""Ingresses as units, and the frontends that they share or have for themselves."""

from __future__ import annotations

from collections import defaultdict

from gateway_translator.backends import BackendResolver
from gateway_translator.clusters import Clusters
from gateway_translator.gateway_unit import Gateways
from gateway_translator.ingress_options import class_of, read_options
from gateway_translator.ingresses import CompiledIngress, compile_ingress
from gateway_translator.ir import (
    DownstreamTls,
    FilterChain,
    HttpHandler,
    Listener,
    ObjectRef,
    RouteTable,
    Transport,
)
from gateway_translator.listener_tls import Material
from gateway_translator.resources.ingress import Ingress
from gateway_translator.resources.meta import Key
from gateway_translator.status_table import StatusTable
from gateway_translator.tables import Entries, Place, Tables
from gateway_translator.tracked import Tracked
from gateway_translator.world import World

HTTP, HTTPS = 80, 443


class Ingresses:
    """``problems``: what is wrong with one, which its status has no place for.

    ``frontends``: by what has addresses for them, the Ingress itself or its class, those that are
    served there; without those of service type NodePort, which need none.
    """

    def __init__(
        self,
        world: World,
        tables: Tables,
        clusters: Clusters,
        gateways: Gateways,
        statuses: StatusTable,
    ) -> None:
        self.problems: Tracked[ObjectRef, str] = Tracked()
        self.frontends: Tracked[Key, tuple[Key, ...]] = Tracked()
        self._world, self._tables, self._clusters = world, tables, clusters
        self._gateways, self._statuses = gateways, statuses
        self._members: defaultdict[Key, dict[Key, CompiledIngress]] = defaultdict(dict)
        self._frontend_of: dict[Key, Key] = {}
        self._dirty: set[Key] = set()

    def touch(self, frontend: Key) -> None:
        """Its addresses changed."""
        self._dirty.add(frontend)

    def update(self, key: Key) -> None:
        """Takes the Ingress out of where it was and puts it where it is now."""
        before = self._frontend_of.pop(key, None)
        if before is not None:
            self._members[before].pop(key, None)
            self._dirty.add(before)
        ingress = self._world.objects.get(key)
        reader = self._world.reader(key)
        backends = BackendResolver(key, reader)
        compiled = None
        if isinstance(ingress, Ingress) and (found := class_of(ingress, reader)) is not None:
            options, problems = read_options(ingress, found, reader)
            compiled = compile_ingress(ingress, options, backends, reader)
            text = "; ".join(dict.fromkeys(problems + compiled.problems))
            self.problems.set(ObjectRef(*key), text or None)
            self._frontend_of[key] = options.frontend
            self._members[options.frontend][key] = compiled
            self._dirty.add(options.frontend)
        else:
            self.problems.drop(ObjectRef(*key))
            self._statuses.set(ObjectRef(*key), None)
        self._clusters.use(key, backends.clusters, backends.bundles)
        self._gateways.keep(key, compiled.material if compiled else Material())
        self._tables.place(key, _places(compiled) if compiled else {})

    def settle(self) -> None:
        for frontend in self._dirty:
            members = self._members.get(frontend, {})
            if not members:
                self._members.pop(frontend, None)
            self._build(frontend, members)
        self._dirty.clear()

    def _build(self, frontend: Key, members: dict[Key, CompiledIngress]) -> None:
        balanced = tuple(sorted(k for k, each in members.items() if not each.options.node_ports))
        self.frontends.set(frontend, balanced or None)
        addresses = self._gateways.addresses_of(frontend).assigned
        for number, chains_of in ((HTTP, _plain), (HTTPS, _secure)):
            chains = chains_of(frontend, members)
            table = _table(frontend, number)
            name = f"{table.name}/{Transport.TCP}"
            if any(isinstance(chain.handler, HttpHandler) for chain in chains):
                self._tables.declare(table, {})
            else:
                self._tables.remove(table.name)
            if not chains:
                self._gateways.listeners.drop(name)
                continue
            listener = Listener(
                name=name,
                gateway=ObjectRef(*frontend),
                addresses=addresses,
                port=number,
                transport=Transport.TCP,
                chains=tuple(chains),
                http3=any(chain.tls for chain in chains),
                node_port=_node_port(members, number),
            )
            self._gateways.listeners.put(name, listener)
        status = {"loadBalancer": {"ingress": [{"ip": address} for address in addresses]}}
        for key in members:
            self._statuses.set(ObjectRef(*key), status)


def _places(compiled: CompiledIngress) -> dict[Place, Entries]:
    frontend = compiled.options.frontend
    plain, secure = (_table(frontend, port).name for port in (HTTP, HTTPS))
    return {
        **{(plain, host): entries for host, entries in compiled.plain.items()},
        **{(secure, host): entries for host, entries in compiled.secure.items()},
    }


def _table(frontend: Key, port: int) -> RouteTable:
    """A colon, which no namespace has, keeps its name apart from those of Gateways."""
    _, namespace, name = frontend
    return RouteTable(f"ingress:{namespace}/{name}/{port}", port, tls=port == HTTPS)


def _plain(frontend: Key, members: dict[Key, CompiledIngress]) -> list[FilterChain]:
    origins = tuple(ObjectRef(*key) for key, each in sorted(members.items()) if each.plain)
    if not origins:
        return []
    return [FilterChain("http", HttpHandler(_table(frontend, HTTP).name), origins=origins)]


def _secure(frontend: Key, members: dict[Key, CompiledIngress]) -> list[FilterChain]:
    """One for each server name; the first Ingress by namespace and name has it."""
    chains: dict[str, FilterChain] = {}
    handler = HttpHandler(_table(frontend, HTTPS).name)
    for key, each in sorted(members.items()):
        origins = (ObjectRef(*key),)
        for host, certificate in each.certificates:
            names = (host,) if host else ()
            tls = DownstreamTls((certificate,))
            chains.setdefault(
                host, FilterChain(f"https/{host}", handler, names, tls, origins=origins)
            )
        for host, forward in each.passthrough:
            names = (host,) if host else ()
            chains.setdefault(
                host,
                FilterChain(
                    f"passthrough/{host}", forward, names, passthrough=True, origins=origins
                ),
            )
    return list(chains.values())


def _node_port(members: dict[Key, CompiledIngress], port: int) -> int:
    """The one that the first Ingress asks for which has service-type NodePort."""
    for _, each in sorted(members.items()):
        options = each.options
        if options.node_ports:
            wanted = options.insecure_node_port if port == HTTP else options.secure_node_port
            if wanted:
                return wanted
    return 0
