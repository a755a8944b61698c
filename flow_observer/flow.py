"""One verdict with both ends named: what ``sidegate observe`` prints a line of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Peer:
    """``pod`` is ``namespace/name``, empty for what is no pod of this node; ``port`` 0 if none."""

    identity: int
    labels: tuple[str, ...]
    pod: str
    ip: str
    port: int


@dataclass(frozen=True, slots=True)
class Flow:
    """``verdict`` is forwarded, denied, audit or redirected; ``layer`` is L3/L4 or L7.

    ``time`` is in nanoseconds since the epoch. ``direction`` is as seen from the endpoint
    ``endpoint_id``, whose policy of ``revision`` decided; ``rule`` is the origin of the rule that
    did, empty where none did. ``count`` is how many equal verdicts this one stands for, and
    ``latency_ns`` the largest time from request to response headers among them, 0 unknown.
    ``http`` and ``kafka`` are the records of policy.proto as plain data, one of them at L7.
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
    latency_ns: int = 0
    http: dict[str, Any] | None = None
    kafka: dict[str, Any] | None = None
    count: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data under the names of the fields."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Lost:
    """So many flows were overwritten before their follower read them."""

    lost: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
