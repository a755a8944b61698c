"""Which listeners a route attaches to by one of its parentRefs, or why to none."""

from __future__ import annotations

from dataclasses import dataclass

from gateway_translator.conditions import Condition, bad, good
from gateway_translator.gateways import CompiledGateway
from gateway_translator.hostnames import effective
from gateway_translator.listeners import ListenerState
from gateway_translator.resources.meta import Key
from gateway_translator.resources.refs import ParentReference
from gateway_translator.resources.routes import Route
from gateway_translator.world import Reader


@dataclass(frozen=True, slots=True)
class Attached:
    """``hostnames``: those at which the route is served by this listener."""

    gateway: Key
    listener: ListenerState
    hostnames: tuple[str, ...]


def attach(
    route: Route, ref: ParentReference, parent: CompiledGateway, owner: Key, reader: Reader
) -> tuple[list[Attached], Condition]:
    """``owner``: the Gateway or ListenerSet that the reference names; Accepted of it."""
    named = [
        each
        for each in parent.listeners
        if each.owner == owner
        and ref.section_name in {"", each.spec.name}
        and ref.port in {0, each.spec.port}
    ]
    if not named:
        text = "no listener has this sectionName and port"
        return [], bad("Accepted", "NoMatchingParent", text)
    allowing = [each for each in named if each.allows(route.kind, route.namespace, reader)]
    if not allowing:
        text = f"allowedRoutes of no listener takes a {route.kind} of {route.namespace}"
        return [], bad("Accepted", "NotAllowedByListeners", text)
    found = []
    for listener in allowing:
        if route.kind in {"TCPRoute", "UDPRoute"}:
            hostnames: tuple[str, ...] = ("*",)
        else:
            hostnames = effective(listener.spec.hostname, route.spec.hostnames)
        if hostnames:
            found.append(Attached(parent.gateway.key, listener, hostnames))
    if not found:
        text = "no hostname of the route meets one of a listener"
        return [], bad("Accepted", "NoMatchingListenerHostname", text)
    return found, good("Accepted")
