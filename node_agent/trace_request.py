"""The question behind ``policy trace``, resolved against what the node knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from l7_proxy_ext import _rules
from node_agent.agent import Agent
from node_agent.endpoints import EndpointRecord
from node_agent.trace import BadTrace, Peer, trace
from policy_engine.identity import Reserved
from policy_engine.kafka_api import API_KEYS
from policy_engine.model import Direction, EndpointPolicy, Parser, Protocol
from sidegate_api.policy.v1 import policy_pb2 as pb
from xds_server.policy_proto import endpoint_policy

_DEFAULT_PORTS = {Parser.HTTP: 80, Parser.KAFKA: 9092}


def answer(agent: Agent, question: Any) -> dict[str, Any]:
    """Raises BadTrace, which names the field."""
    if not isinstance(question, dict):
        raise BadTrace("body: a JSON object is expected")
    source, destination = (_peer(agent, question, side) for side in ("from", "to"))
    if question.get("certificate") is True:
        source, destination = (replace(end, certificate=True) for end in (source, destination))
    try:
        protocol = Protocol[str(question.get("protocol") or "TCP").upper()]
    except KeyError:
        raise BadTrace("protocol: TCP, UDP or SCTP") from None
    request = _request(question)
    port = question.get("port") or _port(source, destination, request)
    if not isinstance(port, int) or not 0 < port <= 65535:
        raise BadTrace("port: 1 to 65535 is required")
    return {
        "from": source.name,
        "to": destination.name,
        "protocol": protocol.name,
        "port": port,
        **trace(source, destination, protocol, port, request, _judge),
    }


def _peer(agent: Agent, question: Mapping[str, Any], side: str) -> Peer:
    text = question.get(side)
    if not isinstance(text, str) or not text:
        raise BadTrace(f"{side}: a pod, an address, identity:N or reserved:NAME is required")
    if text.startswith("identity:") and text[9:].isdecimal():
        return Peer(text, int(text[9:]))
    if text.startswith("reserved:"):
        for reserved in Reserved:
            if reserved.label == text:
                return Peer(text, reserved)
    record = _by_address(agent, text) or agent.enforcement.table.find(text)
    if record is not None:
        policy = agent.enforcement.controller.policy_of(record.id)
        served = agent.sidecars.served if agent.sidecars else {}
        return Peer(record.pod, record.identity, policy, sidecar=record.id in served)
    full = text if "/" in text else f"default/{text}"
    if agent.cluster and (pod := agent.cluster.pod(full) or agent.cluster.pod_at(text)):
        return Peer(pod.pod, pod.identity)
    try:
        return Peer(text, agent.datapath.resolve(ip_address(text)).identity)
    except ValueError:
        pods = ", ".join(r.pod for r in agent.enforcement.table)
        raise BadTrace(f"{side}: no pod {text!r} on this node; there are: {pods}") from None


def _by_address(agent: Agent, text: str) -> EndpointRecord | None:
    try:
        return agent.enforcement.table.by_address(ip_address(text))
    except ValueError:
        return None


def _request(question: Mapping[str, Any]) -> dict[str, Any] | None:
    for parser in Parser:
        if isinstance(given := question.get(parser.value), dict):
            return {"kind": parser.value, **given}
    return None


def _port(source: Peer, destination: Peer, request: Mapping[str, Any] | None) -> int:
    """The port that L7 rules of this protocol name, where it is only one."""
    if request is None:
        raise BadTrace("port: give one, or a request")
    parser = Parser(request["kind"])
    ends = ((destination, Direction.INGRESS), (source, Direction.EGRESS))
    for end, direction in ends:
        rules = end.policy.direction(direction).rules if end.policy else ()
        ports = {rule.port for rule in rules if rule.parser is parser}
        if len(ports) == 1:
            return ports.pop()
    return _DEFAULT_PORTS[parser]


def _judge(
    policy: EndpointPolicy,
    direction: Direction,
    end: Peer,
    port: int,
    request: Mapping[str, Any] | None,
) -> tuple[str, str, str]:
    raw = endpoint_policy(policy).SerializeToString()
    peer = (end.identity, end.certificate)
    if request is None:
        verdict, reason, rule = _rules.evaluate_tcp(raw, direction, peer, port)
    elif request["kind"] == Parser.HTTP.value:
        headers = [(str(k).lower(), str(v)) for k, v in request.get("headers") or []]
        verdict, reason, rule = _rules.evaluate_http(
            raw,
            direction,
            peer,
            port,
            str(request.get("method") or "GET"),
            str(request.get("path") or "/"),
            str(request.get("host") or ""),
            headers,
        )
    else:
        name = str(request.get("api_key") or "").lower()
        if name not in API_KEYS:
            raise BadTrace(f"kafka.api_key: unknown API {name!r}, such as produce or fetch")
        topic = request.get("topic")
        verdict, reason, rule = _rules.evaluate_kafka(
            raw,
            direction,
            peer,
            port,
            API_KEYS[name],
            int(request.get("api_version") or 0),
            str(request.get("client_id") or ""),
            [topic] if topic else [],
        )
    return (
        pb.Verdict.Name(pb.Verdict.ValueType(verdict)).removeprefix("VERDICT_").lower(),
        pb.Reason.Name(pb.Reason.ValueType(reason)).removeprefix("REASON_").lower(),
        rule,
    )
