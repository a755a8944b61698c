"""The last flows of a node in memory, and those who follow them.

A batch of the module is kept as it came and decoded when somebody looks: at thousands of requests
a second nobody may be looking.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from ipaddress import ip_address

from prometheus_client import CollectorRegistry, Counter

from flow_observer.filter import Test
from flow_observer.flow import Flow, Peer
from sidegate_api.policy.v1 import policy_pb2 as pb

# identity, address -> (pod, labels)
Describe = Callable[[int, str], tuple[str, tuple[str, ...]]]
Pending = Callable[[], Flow]

_VERDICTS = {
    pb.VERDICT_ALLOWED: "forwarded",
    pb.VERDICT_DENIED: "denied",
    pb.VERDICT_AUDIT: "audit",
}
_FOLLOWER_QUEUE = 4096


@dataclass(slots=True)
class Follower:
    queue: asyncio.Queue[Flow | Pending]
    lost: int = 0


class Observer:
    """``capacity`` flows are kept; a follower who is too slow loses some, counted."""

    def __init__(self, capacity: int, describe: Describe, kafka_name: Callable[[int], str]) -> None:
        self._ring: deque[Flow | Pending] = deque(maxlen=capacity)
        self._followers: list[Follower] = []
        self._describe, self._kafka_name = describe, kafka_name
        self.registry = CollectorRegistry()
        labels = ("verdict", "layer", "direction", "reason")
        self._flows = Counter(
            "sidegate_flows", "Verdicts of kernel and module", labels, registry=self.registry
        )
        self.verdicts_lost = 0

    def add(self, flow: Flow) -> None:
        self._flows.labels(flow.verdict, flow.layer, flow.direction, flow.reason).inc(flow.count)
        self._publish(flow)

    def add_verdicts(self, batch: pb.VerdictBatch) -> None:
        """Counted now, decoded when it is looked at."""
        self.verdicts_lost += batch.lost
        for record in batch.records:
            verdict = _VERDICTS.get(record.verdict, "denied")
            self._flows.labels(verdict, "L7", _direction(record), _reason(record)).inc(
                record.count or 1
            )
            self._publish(lambda record=record: self._decode(record))  # type: ignore[misc]

    def last(self, number: int, wanted: Test) -> list[Flow]:
        """The newest ``number`` flows that pass, oldest first."""
        found: list[Flow] = []
        for item in reversed(self._ring):
            flow = item if isinstance(item, Flow) else item()
            if wanted(flow):
                found.append(flow)
                if len(found) == number:
                    break
        return found[::-1]

    async def follow(self, wanted: Test) -> AsyncIterator[Flow]:
        """Flows as they come, until the caller stops."""
        follower = Follower(asyncio.Queue(_FOLLOWER_QUEUE))
        self._followers.append(follower)
        try:
            while True:
                item = await follower.queue.get()
                flow = item if isinstance(item, Flow) else item()
                if wanted(flow):
                    yield flow
        finally:
            self._followers.remove(follower)

    def peer(self, identity: int, address: str, port: int) -> Peer:
        pod, labels = self._describe(identity, address)
        return Peer(identity, address, port, pod, labels)

    def _publish(self, item: Flow | Pending) -> None:
        self._ring.append(item)
        for follower in self._followers:
            try:
                follower.queue.put_nowait(item)
            except asyncio.QueueFull:
                follower.lost += 1

    def _decode(self, record: pb.VerdictRecord) -> Flow:
        l7: dict[str, dict[str, object]] = {}
        if record.HasField("http"):
            http = record.http
            l7["http"] = {
                "method": http.method,
                "path": http.path,
                "host": http.host,
                "status": http.status,
                "protocol": http.protocol,
            }
        elif record.HasField("kafka"):
            kafka = record.kafka
            l7["kafka"] = {
                "api": self._kafka_name(kafka.api_key),
                "api_key": kafka.api_key,
                "api_version": kafka.api_version,
                "correlation_id": kafka.correlation_id,
                "client_id": kafka.client_id,
                "topics": list(kafka.topics),
                "error_code": kafka.error_code,
            }
        ends = (
            (record.source_identity, record.source_address, record.source_port),
            (record.destination_identity, record.destination_address, record.destination_port),
        )
        source, destination = (
            self.peer(identity, str(ip_address(raw)) if raw else "", port)
            for identity, raw, port in ends
        )
        return Flow(
            time=record.time_unix_nanos,
            verdict=_VERDICTS.get(record.verdict, "denied"),
            layer="L7",
            direction=_direction(record),
            reason=_reason(record),
            source=source,
            destination=destination,
            protocol="TCP",
            endpoint_id=record.endpoint_id,
            rule=record.rule,
            revision=record.revision,
            latency=record.latency_nanos,
            count=record.count or 1,
            l7=l7,
        )


def _direction(record: pb.VerdictRecord) -> str:
    return "egress" if record.direction == pb.DIRECTION_EGRESS else "ingress"


def _reason(record: pb.VerdictRecord) -> str:
    return pb.Reason.Name(record.reason).removeprefix("REASON_").lower().replace("_", " ")
