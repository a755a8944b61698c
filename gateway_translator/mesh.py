"""Routes whose parent is a Service: what clients in the mesh see at its ports.

A route in the Service's namespace is the producer's and holds for every client; one of another
namespace is a consumer's and holds for clients there, in place of the producer's. Hostnames of such
routes do not count: the Service's address was dialled. Source: GEP-1426, GEP-1324.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from gateway_translator.compiled import CompiledRoute
from gateway_translator.conditions import Condition, bad, good
from gateway_translator.hostnames import ANY
from gateway_translator.ir import (
    Forward,
    HttpHandler,
    MeshFrontend,
    MeshView,
    ObjectRef,
    RouteTable,
)
from gateway_translator.resources.core import Service, ServicePort
from gateway_translator.resources.meta import Key
from gateway_translator.resources.refs import ParentReference
from gateway_translator.resources.routes import Route
from gateway_translator.tables import Place, Tables
from gateway_translator.tracked import Tracked
from gateway_translator.world import Reader, World

UNIT = "MeshFrontend"
_HTTP = frozenset({"HTTPRoute", "GRPCRoute"})
_SPEAKS_HTTP = frozenset(
    {"", "http", "http2", "h2c", "grpc", "kubernetes.io/h2c", "kubernetes.io/ws"}
)
"""Values of a port's appProtocol; others are no HTTP that could be routed."""
Spot = tuple[str, str, int]
"""(namespace, name, port) of a Service port."""


def spots(ref: ParentReference, route: Route, reader: Reader) -> tuple[list[Spot], Condition]:
    """The Service ports that a parentRef means, and Accepted.

    Without a port it means those of the route's protocol: TCP, and for HTTP nothing that is said to
    be something else.
    """
    if route.kind == "UDPRoute":
        text = "datagrams to Services are not routed: refer to a Gateway"
        return [], bad("Accepted", "UnsupportedValue", text)
    where = ref.namespace or route.namespace
    service = reader.get(("Service", where, ref.name), Service)
    if service is None:
        text = f"Service {where}/{ref.name} does not exist"
        return [], bad("Accepted", "NoMatchingParent", text)
    found = [
        (where, ref.name, p.port)
        for p in service.spec.ports
        if p.protocol == "TCP" and (ref.port == p.port or (not ref.port and _fits(route, p)))
    ]
    if not found or ref.section_name:
        text = f"Service {where}/{ref.name} has no such port; sectionName is not for Services"
        return [], bad("Accepted", "NoMatchingParent", text)
    return found, good("Accepted")


def _fits(route: Route, port: ServicePort) -> bool:
    return route.kind not in _HTTP or port.app_protocol.lower() in _SPEAKS_HTTP


def table_name(spot: Spot, client: str) -> str:
    """``client``: namespace of the consumer, empty for the producer's."""
    namespace, name, port = spot
    return f"mesh/{namespace}/{name}/{port}" + (f"/for/{client}" if client else "")


def place_of(spot: Spot, route_namespace: str) -> Place:
    client = "" if route_namespace == spot[0] else route_namespace
    return table_name(spot, client), ANY


class Mesh:
    """Who is attached to which Service port, and the frontends that follow."""

    def __init__(self, world: World, tables: Tables) -> None:
        self.frontends: Tracked[str, MeshFrontend] = Tracked()
        self._world, self._tables = world, tables
        self._attached: defaultdict[Spot, dict[Key, CompiledRoute]] = defaultdict(dict)
        self._spots: dict[Key, list[Spot]] = {}
        self._known: dict[Spot, tuple[str, frozenset[str]]] = {}
        self._dirty: set[Spot] = set()

    def attach(self, route: Key, compiled: CompiledRoute | None, spots: list[Spot]) -> None:
        """Where the route is from now on; None: nowhere."""
        for spot in self._spots.pop(route, ()):
            self._attached[spot].pop(route, None)
            self._dirty.add(spot)
        if compiled is not None and spots:
            self._spots[route] = spots
            for spot in spots:
                self._attached[spot][route] = compiled
                self._dirty.add(spot)

    def touch(self, unit: Key) -> None:
        """The Service of a frontend changed."""
        namespace, name, port = unit[2].split("/")
        self._dirty.add((namespace, name, int(port)))

    def settle(self) -> None:
        for spot in self._dirty:
            self._build(spot)
        self._dirty.clear()

    def _build(self, spot: Spot) -> None:
        namespace, name, number = spot
        unit = (UNIT, "", f"{namespace}/{name}/{number}")
        attached = self._attached.get(spot, {})
        service = self._world.reader(unit).get(("Service", namespace, name), Service)
        ports = service.spec.ports if service else ()
        port = next((p for p in ports if (p.port, p.protocol) == (number, "TCP")), None)
        views: dict[str, MeshView] = {}
        tables: set[str] = set()
        if service is not None and port is not None:
            clients = {"" if key[1] == namespace else key[1] for key in attached}
            for client in sorted(clients):
                here = {k: r for k, r in attached.items() if k[1] == (client or namespace)}
                views[client] = self._view(spot, client, here, tables)
        old_name, old_tables = self._known.pop(spot, ("", frozenset()))
        for table in old_tables - tables:
            self._tables.remove(table)
        if not views or service is None or port is None:
            self._attached.pop(spot, None)
            self._world.forget(unit)
            self.frontends.drop(old_name)
            return
        frontend = MeshFrontend(
            name=f"{namespace}/{name}/{number}",
            service=ObjectRef("Service", namespace, name),
            addresses=service.spec.addresses,
            port=number,
            producer=views.pop("", None),
            consumers=views,
        )
        if old_name != frontend.name:
            self.frontends.drop(old_name)
        self.frontends.put(frontend.name, frontend)
        self._known[spot] = (frontend.name, frozenset(tables))

    def _view(
        self, spot: Spot, client: str, routes: Mapping[Key, CompiledRoute], tables: set[str]
    ) -> MeshView:
        """HTTP if there is a route of that kind, else the oldest TCPRoute has all."""
        ordered = sorted(routes.values(), key=lambda each: each.age)
        streams = [each for each in ordered if each.backends is not None]
        names: dict[str, Forward] = {}
        for each in streams:
            if each.key[0] == "TLSRoute" and each.backends is not None:
                for hostname in each.hostnames:
                    names.setdefault(hostname, Forward(each.backends, ObjectRef(*each.key)))
        passthrough = tuple(names.items())
        plain = [each for each in streams if each.key[0] != "TLSRoute"]
        if any(key[0] in _HTTP for key in routes) or not (plain and plain[0].backends):
            table = RouteTable(table_name(spot, client), spot[2])
            self._tables.declare(table, {ANY: 404})
            tables.add(table.name)
            return MeshView(HttpHandler(table.name), passthrough)
        return MeshView(Forward(plain[0].backends, ObjectRef(*plain[0].key)), passthrough)
