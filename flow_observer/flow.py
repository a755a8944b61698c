"""A flow: one verdict, of either layer, with who, what and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Peer:
    """One end. ``pod`` is "" unless it is an endpoint of this node."""

    identity: int
    ip: str
    port: int
    pod: str = ""
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Flow:
    """``verdict`` is forwarded, redirected, denied or audit; ``layer`` "L3/L4" or "L7".

    ``time`` is in ns since the epoch, ``latency`` in ns (0 unknown). ``count`` is how many equal
    verdicts this stands for. ``l7`` holds the request: ``http`` or ``kafka``.
    """

    time: int
    verdict: str
    layer: str
    direction: str
    reason: str
    source: Peer
    destination: Peer
    protocol: str
    endpoint_id: int
    rule: str = ""
    revision: int = 0
    latency: int = 0
    count: int = 1
    l7: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "time": self.time,
            "verdict": self.verdict,
            "layer": self.layer,
            "direction": self.direction,
            "reason": self.reason,
            "source": _peer(self.source),
            "destination": _peer(self.destination),
            "protocol": self.protocol,
            "endpoint_id": self.endpoint_id,
            "rule": self.rule,
            "revision": self.revision,
            "latency_ns": self.latency,
            "count": self.count,
            **self.l7,
        }


def _peer(peer: Peer) -> dict[str, Any]:
    return {
        "identity": peer.identity,
        "ip": peer.ip,
        "port": peer.port,
        "pod": peer.pod,
        "labels": list(peer.labels),
    }
