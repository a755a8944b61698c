"""Which ports of a pod its proxy intercepts: by what istio-init is told, which has the mesh's own
settings too, or by the annotations that istio-cni reads.

Source: Istio documentation, "Resource annotations", ``traffic.sidecar.istio.io``; ``pilot-agent
istio-iptables --help``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import structlog

from datapath.consts import Enforcer
from datapath.enforcers import Ports
from node_agent.peer_process import PROXY_CONTAINER
from node_agent.proof.prove import Proof
from policy_engine.model import Direction

log = structlog.get_logger(__name__)

_PREFIX = "traffic.sidecar.istio.io/"
# With istio-cni the second checks what the plugin did; it is told the same.
INTERCEPTORS = ("istio-init", "istio-validation")
_FLAGS = {
    "includeInboundPorts": "-b",
    "excludeInboundPorts": "-d",
    "includeOutboundIPRanges": "-i",
    "includeOutboundPorts": "-q",
    "excludeOutboundPorts": "-o",
}
# What istio-init never redirects: HBONE, pilot-agent's and Envoy's own.
_OWN = (15008, 15020, 15021, 15090)


def ports_of(pod: Mapping[str, Any], proof: Proof) -> Ports:
    """Who judges what comes to, or goes to, a port; port 0 is every other port.

    A port that is not intercepted is the node's, and a value that cannot be read excludes nothing.
    Nothing is intercepted without a container that sees to it: mode NONE, and Istio's gateways;
    what those send is their own all the same.
    """
    metadata = pod.get("metadata") or {}
    told = _told(pod)
    if told is None:
        nodes = {(direction, 0): Enforcer.NODE for direction in Direction}
        return nodes | (_egress(proof) if _is_gateway(pod) else {})
    name = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
    result = {(direction, 0): _enforcer(proof, direction, 0) for direction in Direction}
    result |= {at: _enforcer(proof, *at) for at in proof.lacking}
    included = told.get("includeInboundPorts", "*")
    if included != "*":
        result = _left_to_the_node(result, Direction.INGRESS)
        for port in _ports(included, name, "includeInboundPorts"):
            result[Direction.INGRESS, port] = _enforcer(proof, Direction.INGRESS, port)
    excluded = told.get("excludeInboundPorts", "")
    for port in (*_ports(excluded, name, "excludeInboundPorts"), *_OWN):
        result[Direction.INGRESS, port] = Enforcer.NODE
    # Ranges of addresses are not told apart here: what they let past the proxy stays closed.
    if told.get("includeOutboundIPRanges", "*") == "":
        result = _left_to_the_node(result, Direction.EGRESS)
        for port in _ports(told.get("includeOutboundPorts", ""), name, "includeOutboundPorts"):
            result[Direction.EGRESS, port] = _enforcer(proof, Direction.EGRESS, port)
    outbound = told.get("excludeOutboundPorts", "")
    for port in _ports(outbound, name, "excludeOutboundPorts"):
        result[Direction.EGRESS, port] = Enforcer.NODE
    return result


def _egress(proof: Proof) -> dict[tuple[Direction, int], Enforcer]:
    ports = {0, *(port for direction, port in proof.lacking if direction is Direction.EGRESS)}
    return {(Direction.EGRESS, port): _enforcer(proof, Direction.EGRESS, port) for port in ports}


def _is_gateway(pod: Mapping[str, Any]) -> bool:
    """By how its proxy is begun (Istio's template ``gateway``)."""
    containers = (pod.get("spec") or {}).get("containers") or []
    proxies = [each for each in containers if each.get("name") == PROXY_CONTAINER]
    return any((each.get("args") or [])[:2] == ["proxy", "router"] for each in proxies)


def _left_to_the_node(ports: Ports, direction: Direction) -> dict[tuple[Direction, int], Enforcer]:
    return {at: Enforcer.NODE if at[0] is direction else each for at, each in ports.items()}


def _told(pod: Mapping[str, Any]) -> dict[str, str] | None:
    """By the annotation's name, for what was said; None if nothing is intercepted."""
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    told = {name: annotations[_PREFIX + name] for name in _FLAGS if _PREFIX + name in annotations}
    if not pod:
        return told
    for container in (pod.get("spec") or {}).get("initContainers") or []:
        if container.get("name") in INTERCEPTORS:
            args = container.get("args") or []
            for name, flag in _FLAGS.items():
                if flag in args[:-1]:
                    told[name] = args[args.index(flag) + 1]
            return told
    return None


def _enforcer(proof: Proof, direction: Direction, port: int) -> Enforcer:
    return Enforcer.UNPROVEN if proof.why_not(direction, port) else Enforcer.SIDECAR


def _ports(text: str, pod: str, annotation: str) -> Iterator[int]:
    for part in filter(None, map(str.strip, text.split(","))):
        if part.isdecimal() and 0 < int(part) < 65536:
            yield int(part)
        else:
            log.error("not a port: it counts as intercepted, which is closed unless it is",
                      pod=pod, annotation=_PREFIX + annotation, value=part)  # fmt: skip
