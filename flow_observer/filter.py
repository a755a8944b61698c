"""Which flows somebody wants to see. Every condition that is given must hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flow_observer.flow import Flow, Peer

_CHOICES = {
    "verdict": ("forwarded", "denied", "audit", "redirected"),
    "layer": ("L3/L4", "L7"),
    "direction": ("ingress", "egress"),
}

Condition = Callable[[Flow], bool]


class BadFilter(ValueError):
    """The message names the condition and what it takes."""


class FlowFilter:
    """Without conditions it takes every flow."""

    def __init__(self, conditions: list[Condition] | None = None) -> None:
        self._conditions = conditions or []

    @classmethod
    def parse(cls, query: Mapping[str, str]) -> FlowFilter:
        """From names and texts, such as ``{"verdict": "denied", "port": "8080"}``.

        Names: ``verdict``, ``layer``, ``direction``, ``protocol``, ``pod``, ``identity``, ``port``,
        ``from``, ``to``, ``http-method``, ``http-path`` (a prefix) and ``kafka-topic``. ``pod`` and
        ``identity`` hold at either end, ``port`` at the destination. ``pod`` is a name or
        namespace/name; ``from`` and ``to`` also take an address, ``identity:N`` or a label such as
        ``reserved:world``. Empty values are no condition. Raises BadFilter.
        """
        return cls([_condition(name, value) for name, value in query.items() if value])

    def matches(self, flow: Flow) -> bool:
        return all(condition(flow) for condition in self._conditions)


def _condition(name: str, value: str) -> Condition:
    if name in _CHOICES:
        return _choice(name, value)
    if name in ("identity", "port"):
        number = _number(name, value)
        if name == "port":
            return lambda flow: flow.destination.port == number
        return lambda flow: number in (flow.source.identity, flow.destination.identity)
    conditions: dict[str, Condition] = {
        "protocol": lambda flow: value.lower() in _protocols(flow),
        "pod": lambda flow: _is_pod(flow.source, value) or _is_pod(flow.destination, value),
        "from": lambda flow: _is_peer(flow.source, value),
        "to": lambda flow: _is_peer(flow.destination, value),
        "http-method": lambda flow: (flow.http or {}).get("method") == value.upper(),
        "http-path": lambda flow: (flow.http or {"path": ""})["path"].startswith(value),
        "kafka-topic": lambda flow: value in (flow.kafka or {"topics": ()})["topics"],
    }
    if name not in conditions:
        known = ", ".join(sorted([*_CHOICES, *conditions, "identity", "port"]))
        raise BadFilter(f"{name}: unknown filter; known are {known}")
    return conditions[name]


def _choice(name: str, value: str) -> Condition:
    for choice in _CHOICES[name]:
        if value.lower() == choice.lower():
            return lambda flow: getattr(flow, name) == choice
    raise BadFilter(f"{name}: {value!r} is not one of {', '.join(_CHOICES[name])}")


def _number(name: str, value: str) -> int:
    if not value.isdecimal():
        raise BadFilter(f"{name}: {value!r} is not a number")
    return int(value)


def _protocols(flow: Flow) -> tuple[str, ...]:
    """The protocol of the packets, and at L7 what they carry."""
    carried = [name for name, record in (("http", flow.http), ("kafka", flow.kafka)) if record]
    return (flow.protocol.lower(), *carried)


def _is_pod(peer: Peer, wanted: str) -> bool:
    return bool(peer.pod) and wanted in (peer.pod, peer.pod.partition("/")[2])


def _is_peer(peer: Peer, wanted: str) -> bool:
    return (
        _is_pod(peer, wanted)
        or wanted in (peer.ip, f"identity:{peer.identity}")
        or wanted in peer.labels
    )
