"""Verdicts of kernel and module on their way to the observer, with names for numbers."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from datapath.codec import Event
from datapath.consts import Verdict
from datapath.facade import Datapath
from flow_observer.filter import BadFilter, Test, make_filter
from flow_observer.flow import Flow
from flow_observer.observer import Observer
from node_agent.enforcement import Enforcement
from policy_engine.kafka_api import NAMES
from policy_engine.labels import format_labels
from policy_engine.model import Direction, Protocol
from policy_engine.trace import decide
from sidegate_api.policy.v1 import policy_pb2 as pb

if TYPE_CHECKING:
    from node_agent.agent import Agent

CAPACITY = 20_000
_VERDICTS = {
    Verdict.FORWARDED: "forwarded",
    Verdict.DROPPED: "denied",
    Verdict.AUDIT: "audit",
    Verdict.REDIRECTED: "redirected",
}


class Flows:
    """The read side of the agent."""

    def __init__(self, enforcement: Enforcement, datapath: Datapath) -> None:
        self._enforcement, self._datapath = enforcement, datapath
        self.observer = Observer(CAPACITY, self._describe, lambda key: NAMES.get(key, str(key)))
        # Kernel events carry CLOCK_MONOTONIC.
        self._epoch = time.time_ns() - time.monotonic_ns()

    def read_events(self) -> None:
        """Called when the ring buffer has something."""
        for event in self._datapath.read_events():
            self.observer.add(self._flow(event))

    def add_verdicts(self, batch: pb.VerdictBatch) -> None:
        self.observer.add_verdicts(batch)

    def stream(self, query: Mapping[str, str]) -> AsyncIterator[dict[str, Any]]:
        """``last`` flows, then with ``follow`` those that come. Raises BadFilter."""
        rest = {name: value for name, value in query.items() if name not in ("follow", "last")}
        follow = query.get("follow") in ("1", "true")
        last = query.get("last", "0" if follow else "50")
        if not last.isdecimal():
            raise BadFilter(f"last: {last!r} is not a number")
        return self._stream(make_filter(rest), int(last), follow)

    async def _stream(self, wanted: Test, last: int, follow: bool) -> AsyncIterator[dict[str, Any]]:
        for flow in self.observer.last(last, wanted):
            yield flow.to_dict()
        if follow:
            async for flow in self.observer.follow(wanted):
                yield flow.to_dict()

    def metrics(self, agent: Agent) -> bytes:
        registry = CollectorRegistry()
        registry.register(_AgentCollector(agent))
        return generate_latest(self.observer.registry) + generate_latest(registry)

    def _describe(self, identity: int, address: str) -> tuple[str, tuple[str, ...]]:
        labels = self._enforcement.repository.identities().get(identity, {})
        record = self._enforcement.table.by_address(ip_address(address)) if address else None
        return record.pod if record else "", format_labels(labels)

    def _flow(self, event: Event) -> Flow:
        ingress = event.direction is Direction.INGRESS
        return Flow(
            time=self._epoch + event.ktime,
            verdict=_VERDICTS[event.verdict],
            layer="L3/L4",
            direction=event.direction.name.lower(),
            reason=event.reason.text if event.verdict is Verdict.DROPPED else "",
            source=self.observer.peer(event.source_identity, event.saddr, event.sport),
            destination=self.observer.peer(event.destination_identity, event.daddr, event.dport),
            protocol=_protocol(event.protocol),
            endpoint_id=event.endpoint_id,
            rule=self._rule(
                event, event.source_identity if ingress else event.destination_identity
            ),
        )

    def _rule(self, event: Event, peer: int) -> str:
        """The rules behind a kernel verdict: those of the entry that decided."""
        policy = self._enforcement.controller.policy_of(event.endpoint_id)
        if policy is None or not policy.direction(event.direction).enforced:
            return ""
        try:
            protocol = Protocol(event.protocol)
        except ValueError:
            return ""
        found = decide(policy, event.direction, peer, protocol, event.dport)
        return ", ".join(found.origins)


def _protocol(number: int) -> str:
    try:
        return Protocol(number).name
    except ValueError:
        return str(number)


class _AgentCollector(Collector):
    """What is counted elsewhere, read when somebody asks."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def collect(self) -> list[Metric]:
        agent = self._agent
        packets = CounterMetricFamily(
            "sidegate_datapath_packets",
            "Packets judged by the kernel programs",
            labels=("direction", "verdict", "reason"),
        )
        for row in agent.datapath.counters():
            packets.add_metric([row["direction"], row["verdict"], row["reason"]], row["packets"])
        xds = CounterMetricFamily("sidegate_xds", "Counters of the xDS server", labels=("counter",))
        for name, value in agent.xds.counters.items():
            xds.add_metric([name], value)
        gauges = [
            GaugeMetricFamily(f"sidegate_{name}", text, value=value)
            for name, text, value in (
                ("endpoints", "Endpoints of this node", len(agent.enforcement.table)),
                (
                    "policies",
                    "Policy objects enforced",
                    len(agent.enforcement.repository.policies()),
                ),
                (
                    "policies_invalid",
                    "Policy objects refused",
                    len(agent.enforcement.policies.invalid()),
                ),
                ("last_change_seconds", "From change to map write", agent.enforcement.last.seconds),
                ("events_lost", "Kernel events lost", agent.datapath.events_lost()),
                ("verdicts_lost", "Module verdicts lost", self._agent.flows.observer.verdicts_lost),
                ("envoy_restarts", "Restarts of Envoy", agent.supervisor.status()["restarts"]),
            )
        ]
        return [packets, xds, *gauges]
