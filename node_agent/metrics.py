"""The agent's metrics in Prometheus' text format."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from datapath.facade import Datapath
from l7_proxy_ext.supervisor import Supervisor
from node_agent.enforcement import Enforcement
from node_agent.flows import Flows
from node_agent.proxy import External
from xds_server.server import XdsServer


class Metrics(Collector):
    """What is counted elsewhere, read when somebody asks."""

    def __init__(
        self,
        datapath: Datapath,
        xds: XdsServer,
        enforcement: Enforcement,
        supervisor: Supervisor | External,
        flows: Flows,
    ) -> None:
        self._datapath, self._xds, self._enforcement = datapath, xds, enforcement
        self._supervisor, self._flows = supervisor, flows
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        return generate_latest(self._flows.registry) + generate_latest(self._registry)

    def collect(self) -> list[Metric]:
        packets = CounterMetricFamily(
            "sidegate_datapath_packets",
            "Packets judged by the kernel programs",
            labels=("direction", "verdict", "reason"),
        )
        for row in self._datapath.counters():
            packets.add_metric([row["direction"], row["verdict"], row["reason"]], row["packets"])
        xds = CounterMetricFamily("sidegate_xds", "Counters of the xDS server", labels=("counter",))
        for name, value in self._xds.counters.items():
            xds.add_metric([name], value)
        enforced = self._enforcement
        gauges = [
            GaugeMetricFamily(f"sidegate_{name}", text, value=value)
            for name, text, value in (
                ("endpoints", "Endpoints of this node", len(enforced.table)),
                ("policies", "Policy objects enforced", len(enforced.repository.policies())),
                ("policies_invalid", "Policy objects refused", len(enforced.policies.invalid())),
                ("last_change_seconds", "From change to map write", enforced.last.seconds),
                ("envoy_restarts", "Restarts of Envoy", self._supervisor.status()["restarts"]),
            )
        ]
        return [packets, xds, *gauges]
