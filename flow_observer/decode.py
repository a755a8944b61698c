"""From what the module and the kernel report to :class:`Flow`."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, Protocol

from flow_observer.flow import Flow, Peer
from policy_engine import model
from policy_engine.kafka_api import NAMES
from sidegate_api.policy.v1 import policy_pb2 as pb

Resolve = Callable[[int], tuple[str, ...]]
PodOf = Callable[[str], str]

VERDICTS = {
    pb.VERDICT_ALLOWED: "forwarded",
    pb.VERDICT_DENIED: "denied",
    pb.VERDICT_AUDIT: "audit",
}
REASONS = {value: name.removeprefix("REASON_").lower() for name, value in pb.Reason.items()}
DIRECTIONS = {pb.DIRECTION_INGRESS: "ingress", pb.DIRECTION_EGRESS: "egress"}
PROTOCOLS = {int(protocol): protocol.name for protocol in model.Protocol}


class KernelEvent(Protocol):
    """A verdict of the kernel; ``time`` in nanoseconds since the epoch, addresses as text.

    ``verdict`` is forwarded, dropped, audit or redirected, ``direction`` ingress or egress.
    """

    @property
    def time(self) -> int: ...
    @property
    def saddr(self) -> str: ...
    @property
    def daddr(self) -> str: ...
    @property
    def source_identity(self) -> int: ...
    @property
    def destination_identity(self) -> int: ...
    @property
    def sport(self) -> int: ...
    @property
    def dport(self) -> int: ...
    @property
    def endpoint_id(self) -> int: ...
    @property
    def protocol(self) -> int: ...
    @property
    def direction(self) -> str: ...
    @property
    def verdict(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def rule(self) -> str: ...


class Decoder:
    """``resolve`` gives the labels of an identity, ``pod_of`` the pod of an address or ""."""

    def __init__(self, resolve: Resolve, pod_of: PodOf) -> None:
        self._resolve = resolve
        self._pod_of = pod_of

    def verdict(self, record: pb.VerdictRecord) -> Flow:
        return Flow(
            time=record.time_unix_nanos,
            verdict=VERDICTS.get(record.verdict, "denied"),
            layer="L7",
            direction=DIRECTIONS.get(record.direction, "unknown"),
            reason=REASONS.get(record.reason, "unspecified"),
            source=self._peer(
                record.source_identity, address(record.source_address), record.source_port
            ),
            destination=self._peer(
                record.destination_identity,
                address(record.destination_address),
                record.destination_port,
            ),
            protocol="TCP",
            endpoint_id=record.endpoint_id,
            rule=record.rule,
            revision=record.revision,
            latency_ns=record.latency_nanos,
            http=_http(record.http) if record.HasField("http") else None,
            kafka=_kafka(record.kafka) if record.HasField("kafka") else None,
            count=max(record.count, 1),
        )

    def event(self, event: KernelEvent) -> Flow:
        return Flow(
            time=event.time,
            verdict=kernel_verdict(event),
            layer="L3/L4",
            direction=event.direction,
            reason=event.reason,
            source=self._peer(event.source_identity, event.saddr, event.sport),
            destination=self._peer(event.destination_identity, event.daddr, event.dport),
            protocol=PROTOCOLS.get(event.protocol, str(event.protocol)),
            endpoint_id=event.endpoint_id,
            rule=event.rule,
        )

    def _peer(self, identity: int, ip: str, port: int) -> Peer:
        return Peer(identity, self._resolve(identity), self._pod_of(ip), ip, port)


def kernel_verdict(event: KernelEvent) -> str:
    """The kernel drops what policy denies."""
    return "denied" if event.verdict == "dropped" else event.verdict


def address(raw: bytes) -> str:
    """Text of 4 or 16 bytes; a v4-mapped address (RFC 4291, 2.5.5.2) is shown as IPv4."""
    if len(raw) == 4:
        return socket.inet_ntop(socket.AF_INET, raw)
    if len(raw) == 16:
        if raw.startswith(b"\0" * 10 + b"\xff\xff"):
            return socket.inet_ntop(socket.AF_INET, raw[12:])
        return socket.inet_ntop(socket.AF_INET6, raw)
    return ""


def _http(record: pb.HttpRecord) -> dict[str, Any]:
    return {
        "method": record.method,
        "path": record.path,
        "host": record.host,
        "status": record.status,
        "protocol": record.protocol,
    }


def _kafka(record: pb.KafkaRecord) -> dict[str, Any]:
    return {
        "api_key": record.api_key,
        "api": NAMES.get(record.api_key, str(record.api_key)),
        "api_version": record.api_version,
        "correlation_id": record.correlation_id,
        "client_id": record.client_id,
        "topics": list(record.topics),
        "error_code": record.error_code,
    }
