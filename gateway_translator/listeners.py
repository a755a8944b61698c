"""The listeners of one Gateway and its ListenerSets, each with what it serves and what is wrong.

Source: GatewaySpec.listeners, ListenerSetSpec.listeners.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway_translator.conditions import Condition, bad, good
from gateway_translator.conflicts import conflict, overlap
from gateway_translator.ir import DownstreamTls
from gateway_translator.resources.gateway import Gateway, ListenerSet, ListenerSpec, Namespaces
from gateway_translator.resources.meta import Key
from gateway_translator.resources.refs import GROUP
from gateway_translator.secrets import UnusableError
from gateway_translator.world import Reader

KINDS = {
    "HTTP": ("HTTPRoute", "GRPCRoute"),
    "HTTPS": ("HTTPRoute", "GRPCRoute"),
    "TLS": ("TLSRoute",),
    "TCP": ("TCPRoute",),
    "UDP": ("UDPRoute",),
}
"""Which kinds of route a protocol takes."""


@dataclass(slots=True)
class ListenerState:
    """``conflict``: reason of Conflicted, empty: none. ``problems``: of ResolvedRefs."""

    owner: Key
    spec: ListenerSpec
    kinds: tuple[str, ...]
    conflict: str = ""
    conflict_with: str = ""
    accepted: Condition = field(default_factory=lambda: good("Accepted"))
    problems: list[UnusableError] = field(default_factory=list)
    tls: DownstreamTls | None = None
    overlaps: bool = False

    @property
    def served(self) -> bool:
        """Whether the proxy gets anything of it."""
        return self.accepted.status and (self.tls is not None or not self.ends_tls)

    @property
    def ends_tls(self) -> bool:
        return self.spec.protocol in {"HTTPS", "TLS"} and not self.passthrough

    @property
    def passthrough(self) -> bool:
        spec = self.spec
        return spec.protocol == "TLS" and spec.tls is not None and spec.tls.mode == "Passthrough"

    @property
    def http(self) -> bool:
        return self.spec.protocol in {"HTTP", "HTTPS"}

    @property
    def transport(self) -> str:
        return "udp" if self.spec.protocol == "UDP" else "tcp"

    def allows(self, kind: str, namespace: str, reader: Reader) -> bool:
        allowed = self.spec.allowed_routes
        return kind in self.kinds and selects(
            allowed.namespaces if allowed else None, "Same", self.owner[1], namespace, reader
        )

    def conditions(self, gateway: Condition) -> list[Condition]:
        """``gateway``: Programmed of it, without which nothing of it is served."""
        found = [self.accepted]
        if self.conflict:
            found.append(Condition("Conflicted", True, self.conflict, self.conflict_with))
        else:
            found.append(Condition("Conflicted", False, "NoConflicts"))
        if self.problems:
            text = "; ".join(dict.fromkeys(map(str, self.problems)))
            found.append(bad("ResolvedRefs", self.problems[0].reason, text))
        else:
            found.append(good("ResolvedRefs"))
        if self.served and gateway.status:
            found.append(good("Programmed"))
        elif self.served:
            why = "Invalid" if gateway.reason == "Invalid" else "Pending"
            found.append(bad("Programmed", why, gateway.message))
        else:
            why = self.conflict or "Invalid"
            found.append(bad("Programmed", why, "the listener is not served; see the others"))
        if self.overlaps:
            text = "the hostname of another listener of this port overlaps with this one's"
            found.append(Condition("OverlappingTLSConfig", True, "OverlappingHostnames", text))
        return found


def selects(
    rule: Namespaces | None, default: str, own: str, namespace: str, reader: Reader
) -> bool:
    """Whether a ``namespaces`` field of an object in ``own`` takes what is in ``namespace``."""
    match (rule.from_ if rule else "") or default:
        case "All":
            return True
        case "Same":
            return namespace == own
        case "Selector" if rule is not None and rule.selector is not None:
            return rule.selector.matches(reader.labels_of_namespace(namespace))
        case _:
            return False


def states(gateway: Gateway, sets: Iterable[ListenerSet], reader: Reader) -> list[ListenerState]:
    """Of the Gateway first, then of its sets in order of precedence; conflicts found."""
    found = [_state(gateway.key, spec, reader) for spec in gateway.spec.listeners]
    own = len(found)
    for listener_set in sets:
        found += [_state(listener_set.key, spec, reader) for spec in listener_set.spec.listeners]
    # Within a Gateway nobody wins; what a set adds loses to what comes before it and is served.
    for index, state in enumerate(found):
        if index < own:
            peers = [each for each in found[:own] if each is not state]
        else:
            peers = found[:index]
        _settle(state, [each for each in peers if each.accepted.status])
        if state.conflict and index >= own:
            state.accepted = bad("Accepted", state.conflict, state.conflict_with)
    for state in found[:own]:
        if state.conflict:
            state.accepted = bad("Accepted", state.conflict, state.conflict_with)
    for state in found:
        state.overlaps = not state.conflict and any(
            overlap(state.spec, other.spec)
            for other in found
            if other is not state and not other.conflict
        )
    return found


def _state(owner: Key, spec: ListenerSpec, reader: Reader) -> ListenerState:
    supported = KINDS.get(spec.protocol, ())
    wanted = spec.allowed_routes.kinds if spec.allowed_routes else ()
    kinds = tuple(
        kind
        for kind in supported
        if not wanted or any((w.group, w.kind) == (GROUP, kind) for w in wanted)
    )
    state = ListenerState(owner, spec, kinds)
    unknown = [w.kind for w in wanted if w.group != GROUP or w.kind not in supported]
    if unknown:
        text = f"{', '.join(unknown)}: protocol {spec.protocol} takes {', '.join(supported)}"
        state.problems.append(UnusableError("InvalidRouteKinds", text))
    if not supported:
        text = f"protocol {spec.protocol!r} is none of {', '.join(KINDS)}"
        state.accepted = bad("Accepted", "UnsupportedProtocol", text)
    elif spec.protocol == "HTTPS" and spec.tls is not None and spec.tls.mode != "Terminate":
        text = "protocol HTTPS needs tls.mode Terminate; for Passthrough use protocol TLS"
        state.accepted = bad("Accepted", "UnsupportedValue", text)
    elif refusal := reader.refusal(owner, spec.name):
        state.accepted = bad("Accepted", "UnsupportedValue", f"the proxy refuses it: {refusal}")
    return state


def _settle(state: ListenerState, peers: list[ListenerState]) -> None:
    for other in peers if state.accepted.status else ():
        if reason := conflict(state.spec, other.spec):
            state.conflict = reason
            state.conflict_with = f"with listener {other.spec.name}"
            return
