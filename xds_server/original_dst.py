"""Clusters that go where the client was going."""

from __future__ import annotations

from typing import Any

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.core.v3 import base_pb2
from google.protobuf.wrappers_pb2 import UInt32Value

from xds_server.resources import duration

# About what the kernel's own retries of a SYN take; a client gives up when it would have anyway.
CONNECT_SECONDS = 120
_UNLIMITED = 2**32 - 1


def original_dst_cluster(name: str) -> Any:
    """An ORIGINAL_DST cluster that sets no limit of its own."""
    return cluster_pb2.Cluster(
        name=name,
        type=cluster_pb2.Cluster.ORIGINAL_DST,
        lb_policy=cluster_pb2.Cluster.CLUSTER_PROVIDED,
        connect_timeout=duration(CONNECT_SECONDS),
        circuit_breakers=circuit_breaker_pb2.CircuitBreakers(thresholds=unlimited()),
    )


def unlimited() -> list[Any]:
    """Thresholds of a circuit breaker that never opens."""
    return [
        circuit_breaker_pb2.CircuitBreakers.Thresholds(
            priority=priority,
            max_connections=UInt32Value(value=_UNLIMITED),
            max_pending_requests=UInt32Value(value=_UNLIMITED),
            max_requests=UInt32Value(value=_UNLIMITED),
        )
        for priority in (base_pb2.DEFAULT, base_pb2.HIGH)
    ]
