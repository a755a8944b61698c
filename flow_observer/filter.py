"""Which flows somebody wants to see."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from flow_observer.flow import Flow, Peer

Test = Callable[[Flow], bool]


class BadFilter(ValueError):
    """An unknown filter; the message lists those there are."""


def _is(peer: Peer, text: str) -> bool:
    """A pod by name or ``namespace/name``, an address, or an identity number."""
    name = peer.pod.rpartition("/")[2]
    return text in (peer.pod, name, peer.ip, str(peer.identity))


def _http(flow: Flow, name: str) -> str:
    return str(flow.l7.get("http", {}).get(name, ""))


_TESTS: dict[str, Callable[[Flow, str], bool]] = {
    "verdict": lambda f, v: f.verdict == v,
    "layer": lambda f, v: v.upper() in (f.layer, f.layer.replace("/L4", "")),
    "direction": lambda f, v: f.direction == v,
    "protocol": lambda f, v: f.protocol.lower() == v.lower(),
    "port": lambda f, v: v in (str(f.source.port), str(f.destination.port)),
    "pod": lambda f, v: _is(f.source, v) or _is(f.destination, v),
    "identity": lambda f, v: v in (str(f.source.identity), str(f.destination.identity)),
    "from": lambda f, v: _is(f.source, v),
    "to": lambda f, v: _is(f.destination, v),
    "rule": lambda f, v: v in f.rule,
    "http-method": lambda f, v: _http(f, "method") == v.upper(),
    "http-path": lambda f, v: _http(f, "path").startswith(v),
    "kafka-topic": lambda f, v: v in f.l7.get("kafka", {}).get("topics", ()),
}
NAMES = tuple(_TESTS)


def make_filter(query: Mapping[str, str]) -> Test:
    """All given filters must hold. Raises BadFilter."""
    wanted = []
    for name, value in query.items():
        if name not in _TESTS:
            raise BadFilter(f"{name}: unknown filter; there are {', '.join(NAMES)}")
        wanted.append((_TESTS[name], value))
    return lambda flow: all(test(flow, value) for test, value in wanted)
