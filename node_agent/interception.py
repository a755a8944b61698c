"""Which ports of a pod its proxy intercepts, by Istio's own annotations.

Source: Istio documentation, "Resource annotations", ``traffic.sidecar.istio.io``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import structlog

from datapath.consts import Enforcer
from datapath.enforcers import Ports
from policy_engine.model import Direction

log = structlog.get_logger(__name__)

_PREFIX = "traffic.sidecar.istio.io/"
# What istio-init never redirects: pilot-agent's and Envoy's own.
_OWN = (15020, 15021, 15090)


def ports_of(pod: Mapping[str, Any], enforcer: Enforcer) -> Ports:
    """What the proxy judges has ``enforcer``; port 0 is every other port.

    A port that is not intercepted is the node's, and a value that cannot be read excludes nothing.
    """
    metadata = pod.get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    name = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
    # Egress is not judged in the proxy yet, and nobody else can read it: it stays closed.
    result = {(Direction.INGRESS, 0): enforcer, (Direction.EGRESS, 0): Enforcer.UNPROVEN}
    included = annotations.get(f"{_PREFIX}includeInboundPorts", "*")
    if included != "*":
        result[Direction.INGRESS, 0] = Enforcer.NODE
        for port in _ports(included, name, "includeInboundPorts"):
            result[Direction.INGRESS, port] = enforcer
    excluded = annotations.get(f"{_PREFIX}excludeInboundPorts", "")
    for port in (*_ports(excluded, name, "excludeInboundPorts"), *_OWN):
        result[Direction.INGRESS, port] = Enforcer.NODE
    outbound = annotations.get(f"{_PREFIX}excludeOutboundPorts", "")
    for port in _ports(outbound, name, "excludeOutboundPorts"):
        result[Direction.EGRESS, port] = Enforcer.NODE
    return result


def _ports(text: str, pod: str, annotation: str) -> Iterator[int]:
    for part in filter(None, map(str.strip, text.split(","))):
        if part.isdecimal() and 0 < int(part) < 65536:
            yield int(part)
        else:
            log.error("not a port: it counts as intercepted, which is closed unless it is",
                      pod=pod, annotation=_PREFIX + annotation, value=part)  # fmt: skip
