"""The listeners of one Gateway to those of the proxy: one for each port, with its chains.

Hostnames of listeners on one port are kept apart: a request goes to the most specific listener that
covers its Host, and to no other even if that one has no route for it (listener isolation).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gateway_translator.compiled import CompiledRoute
from gateway_translator.gateway_options import Exposure
from gateway_translator.hostnames import ANY, owner
from gateway_translator.ir import (
    FilterChain,
    Forward,
    HttpHandler,
    Listener,
    ObjectRef,
    RouteTable,
    Transport,
)
from gateway_translator.listeners import ListenerState
from gateway_translator.resources.meta import Key

ListenerId = tuple[Key, str]
"""(owner, name)"""


def listener_id(state: ListenerState) -> ListenerId:
    return state.owner, state.spec.name


@dataclass(slots=True)
class PortPlan:
    """HTTP of one port: which table each listener's routes are in."""

    tables: list[tuple[RouteTable, dict[str, int]]] = field(default_factory=list)
    table_of: dict[ListenerId, str] = field(default_factory=dict)
    hostnames: dict[ListenerId, str] = field(default_factory=dict)

    def takes(self, listener: ListenerId, hostname: str) -> bool:
        """Whether this listener is the one that requests for the hostname belong to."""
        return owner(hostname, self.hostnames.values()) == self.hostnames[listener]


def plan_ports(gateway: str, listeners: Iterable[ListenerState]) -> dict[int, PortPlan]:
    """``gateway``: its name in the IR, which begins the names of tables."""
    plans: dict[int, PortPlan] = {}
    served = [each for each in listeners if each.served and each.spec.protocol != "UDP"]
    for port in {each.spec.port for each in served if each.http}:
        here = [each for each in served if each.spec.port == port]
        plan = plans[port] = PortPlan()
        plan.hostnames = {listener_id(e): e.spec.hostname.lower() or ANY for e in here}
        https = [each for each in here if each.spec.protocol == "HTTPS"]
        if not https:
            table = RouteTable(f"{gateway}/{port}", port)
            plan.tables.append((table, dict.fromkeys(plan.hostnames.values(), 404)))
            plan.table_of = {listener_id(each): table.name for each in here}
        for each in https:
            own = plan.hostnames[listener_id(each)]
            table = RouteTable(f"{gateway}/{port}/{_section(each)}", port, tls=True)
            hosts = {h: 404 if h == own else 421 for h in plan.hostnames.values()}
            plan.tables.append((table, hosts))
            plan.table_of[listener_id(each)] = table.name
    return plans


def compose(
    gateway: Key,
    name: str,
    addresses: tuple[str, ...],
    listeners: Sequence[ListenerState],
    plans: Mapping[int, PortPlan],
    attached: Mapping[ListenerId, Mapping[Key, tuple[CompiledRoute, tuple[str, ...]]]],
    reached: Exposure,
) -> list[Listener]:
    """``attached``: routes of listeners with the hostnames that they have there."""
    found = []
    served = [each for each in listeners if each.served]
    for port, transport in sorted({(e.spec.port, e.transport) for e in served}):
        here = [e for e in served if (e.spec.port, e.transport) == (port, transport)]
        chains: list[FilterChain] = []
        if plain := [each for each in here if each.spec.protocol == "HTTP"]:
            table = plans[port].table_of[listener_id(plain[0])]
            origins = tuple(_origin(each) for each in plain)
            chains.append(FilterChain("http", HttpHandler(table), origins=origins))
        for each in here:
            if each.spec.protocol == "HTTPS":
                handler = HttpHandler(plans[port].table_of[listener_id(each)])
                names = (each.spec.hostname.lower(),) if each.spec.hostname else ()
                chains.append(
                    FilterChain(_section(each), handler, names, each.tls, origins=(_origin(each),))
                )
            elif each.spec.protocol != "HTTP":
                chains += _streams(each, attached.get(listener_id(each), {}))
        if not chains:
            continue
        http3 = any(e.spec.protocol == "HTTPS" for e in here) and not any(
            e.spec.port == port and e.transport == "udp" for e in served
        )
        found.append(
            Listener(
                name=f"{name}/{port}/{transport}",
                gateway=ObjectRef(*gateway),
                addresses=addresses,
                port=port,
                transport=Transport(transport),
                chains=tuple(chains),
                http3=http3,
                node_port=reached.node_port(port) if reached.on_nodes else 0,
            )
        )
    return found


def _streams(
    state: ListenerState, attached: Mapping[Key, tuple[CompiledRoute, tuple[str, ...]]]
) -> list[FilterChain]:
    """One chain for each server name; the oldest route has it (without names: the listener)."""
    chains: dict[str, FilterChain] = {}
    for route, hostnames in sorted(attached.values(), key=lambda pair: pair[0].age):
        if route.backends is None or route.accepted is not None:
            continue
        forward = Forward(route.backends, ObjectRef(*route.key))
        for hostname in hostnames:
            if hostname not in chains:
                names = () if hostname == ANY else (hostname,)
                chains[hostname] = FilterChain(
                    f"{_section(state)}/{hostname}",
                    forward,
                    names,
                    state.tls,
                    state.passthrough,
                    (_origin(state),),
                )
    return list(chains.values())


def _section(state: ListenerState) -> str:
    """Unique among the listeners of a Gateway and its sets."""
    kind, namespace, name = state.owner
    return state.spec.name if kind == "Gateway" else f"{namespace}/{name}/{state.spec.name}"


def _origin(state: ListenerState) -> ObjectRef:
    return ObjectRef(*state.owner, state.spec.name)
