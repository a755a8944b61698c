"""Verdicts of kernel and module on their way to the observer, with names for numbers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from prometheus_client import CollectorRegistry

from datapath.codec import Event
from datapath.consts import DropReason, Verdict
from datapath.facade import Datapath
from flow_observer.filter import BadFilter, FlowFilter
from flow_observer.observer import Observer
from node_agent.cluster import Cluster
from node_agent.enforcement import Enforcement
from policy_engine.labels import format_labels
from policy_engine.model import Direction, Protocol
from policy_engine.trace import decide
from sidegate_api.policy.v1 import policy_pb2 as pb

CAPACITY = 20_000


@dataclass(frozen=True, slots=True)
class KernelFlow:
    """An event of the kernel as :class:`flow_observer.decode.KernelEvent`."""

    time: int
    saddr: str
    daddr: str
    source_identity: int
    destination_identity: int
    sport: int
    dport: int
    endpoint_id: int
    protocol: int
    direction: str
    verdict: str
    reason: str
    rule: str


class Flows:
    """The read side of the agent. ``registry`` has what is counted of them."""

    def __init__(
        self, enforcement: Enforcement, datapath: Datapath, cluster: Cluster | None
    ) -> None:
        self._enforcement, self._datapath, self._cluster = enforcement, datapath, cluster
        self.registry = CollectorRegistry()
        self._observer = Observer(CAPACITY, self._labels, self._pod, self.registry)
        self._events_lost = datapath.events_lost()
        # Kernel events carry CLOCK_MONOTONIC.
        self._epoch = time.time_ns() - time.monotonic_ns()

    def read_events(self) -> None:
        """Called when the ring buffer has something."""
        lost = self._datapath.events_lost()
        events = [self._kernel_flow(event) for event in self._datapath.read_events()]
        self._observer.add_events(events, lost - self._events_lost)
        self._events_lost = lost

    def add_verdicts(self, batch: pb.VerdictBatch) -> None:
        self._observer.add_verdicts(batch)

    def stream(self, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """``last`` flows, then with ``follow`` those that come. Raises BadFilter."""
        rest = {name: value for name, value in query.items() if name not in ("follow", "last")}
        follow = query.get("follow") in ("1", "true")
        last = query.get("last", "0" if follow else "50")
        if not last.isdecimal():
            raise BadFilter(f"last: {last!r} is not a number")
        return self._stream(FlowFilter.parse(rest), int(last), follow)

    async def _stream(
        self, wanted: FlowFilter, last: int, follow: bool
    ) -> AsyncIterator[dict[str, Any]]:
        if not follow:
            for flow in self._observer.last(last, wanted):
                yield flow.to_dict()
            return
        async for item in self._observer.follow(wanted, last):
            yield item.to_dict()

    def _labels(self, identity: int) -> tuple[str, ...]:
        return format_labels(self._enforcement.repository.identities().get(identity, {}))

    def _pod(self, address: str) -> str:
        if not address:
            return ""
        if record := self._enforcement.table.by_address(ip_address(address)):
            return record.pod
        peer = self._cluster.pod_at(address) if self._cluster else None
        return peer.pod if peer else ""

    def _kernel_flow(self, event: Event) -> KernelFlow:
        dropped = event.verdict is Verdict.DROPPED
        return KernelFlow(
            time=self._epoch + event.ktime,
            saddr=event.saddr,
            daddr=event.daddr,
            source_identity=event.source_identity,
            destination_identity=event.destination_identity,
            sport=event.sport,
            dport=event.dport,
            endpoint_id=event.endpoint_id,
            protocol=event.protocol,
            direction=event.direction.name.lower(),
            verdict=event.verdict.name.lower(),
            reason=event.reason.text if dropped else "",
            rule=self._rule(event),
        )

    def _rule(self, event: Event) -> str:
        """The rules behind a kernel verdict: those of the entry that decided; none behind a drop
        for another reason."""
        if event.verdict is Verdict.DROPPED and event.reason is not DropReason.POLICY_DENIED:
            return ""
        policy = self._enforcement.controller.policy_of(event.endpoint_id)
        if policy is None or not policy.direction(event.direction).enforced:
            return ""
        ingress = event.direction is Direction.INGRESS
        peer = event.source_identity if ingress else event.destination_identity
        try:
            protocol = Protocol(event.protocol)
        except ValueError:
            return ""
        found = decide(policy, event.direction, peer, protocol, event.dport)
        return ", ".join(found.origins)
