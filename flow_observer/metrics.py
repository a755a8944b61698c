"""Prometheus counters over all flows, seen by a follower or not."""

from __future__ import annotations

from collections import Counter

from prometheus_client import CollectorRegistry
from prometheus_client import Counter as Metric

# (layer, verdict, direction, reason, protocol)
Kind = tuple[str, str, str, str, str]


class FlowMetrics:
    """``sidegate_flows_total`` and ``sidegate_flows_lost_total`` in ``registry``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ["layer", "verdict", "direction", "reason", "protocol"]
        self._flows = Metric("sidegate_flows", "Verdicts by kind", labels, registry=registry)
        self._lost = Metric(
            "sidegate_flows_lost", "Verdicts that never arrived", ["source"], registry=registry
        )

    def count(self, kinds: Counter[Kind]) -> None:
        """A batch at a time: finding a labelled child costs more than counting in a dict."""
        for kind, number in kinds.items():
            self._flows.labels(*kind).inc(number)

    def lost(self, source: str, number: int) -> None:
        """``source`` is module or kernel."""
        if number:
            self._lost.labels(source).inc(number)
