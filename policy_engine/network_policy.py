"""NetworkPolicy of networking.k8s.io/v1, in full.

Source: Kubernetes documentation, "Network Policies", and the API reference of NetworkPolicySpec.
Peers are judged by identity: an ``ipBlock`` means addresses outside the cluster.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from policy_engine.errors import Errors
from policy_engine.labels import NAMESPACE, NAMESPACE_LABEL_PREFIX
from policy_engine.model import TRANSPORTS, Direction
from policy_engine.parse_ports import parse_number, parse_port_name
from policy_engine.parse_selectors import parse_cidr_set, parse_labels
from policy_engine.rules import Port, PortSet, Rule, Spec
from policy_engine.selector import LabelSelector, Requirement, Selector

_IS_POD = Requirement(NAMESPACE, "Exists")
_TYPES = {"Ingress": Direction.INGRESS, "Egress": Direction.EGRESS}


def parse_spec(value: Any, namespace: str, errors: Errors) -> Spec:
    """What is wrong goes into ``errors``; the result is only for the case of none."""
    known = ("podSelector", "policyTypes", "ingress", "egress")
    spec = errors.fields(value, "spec", known)
    subject = parse_labels(spec.get("podSelector") or {}, "spec.podSelector", errors)
    types = set()
    for at, item in errors.items(spec.get("policyTypes") or [], "spec.policyTypes"):
        if item in _TYPES:
            types.add(_TYPES[item])
        else:
            errors.add(at, f"unknown type {item!r}", f"one of {', '.join(_TYPES)}")
    if not types:
        types = {Direction.INGRESS} | ({Direction.EGRESS} if spec.get("egress") else set())
    rules = {
        Direction.INGRESS: _rules(spec, "ingress", "from", namespace, errors),
        Direction.EGRESS: _rules(spec, "egress", "to", namespace, errors),
    }
    return Spec(
        path="",
        subject=_pods(subject).within(namespace),
        ingress=rules[Direction.INGRESS] if Direction.INGRESS in types else None,
        egress=rules[Direction.EGRESS] if Direction.EGRESS in types else None,
    )


def _rules(
    spec: dict[str, Any], direction: str, side: str, namespace: str, errors: Errors
) -> tuple[Rule, ...]:
    rules = []
    for path, item in errors.items(spec.get(direction) or [], f"spec.{direction}"):
        rule = errors.fields(item or {}, path, (side, "ports"))
        peers: tuple[Selector, ...] | None = None
        if rule.get(side):
            found = [_peer(peer, at, namespace, errors)
                     for at, peer in errors.items(rule[side], f"{path}.{side}")]  # fmt: skip
            peers = tuple(peer for peer in found if peer is not None)
        ports = None
        if rule.get("ports"):
            made = [_port(port, at, errors)
                    for at, port in errors.items(rule["ports"], f"{path}.ports")]  # fmt: skip
            ports = (PortSet(tuple(port for port in made if port is not None)),)
        rules.append(Rule(peers, ports))
    return tuple(rules)


def _peer(value: Any, path: str, namespace: str, errors: Errors) -> Selector | None:
    peer = errors.fields(value, path, ("podSelector", "namespaceSelector", "ipBlock"))
    if "ipBlock" in peer:
        if len(peer) > 1:
            errors.add(path, "ipBlock excludes the selectors", "use two items of the list")
        return parse_cidr_set(peer["ipBlock"], f"{path}.ipBlock", errors)
    if not peer:
        errors.add(path, "names no peer", "give podSelector, namespaceSelector or ipBlock")
        return None
    pods = parse_labels(peer.get("podSelector") or {}, f"{path}.podSelector", errors)
    if peer.get("namespaceSelector") is None:
        return _pods(pods).within(namespace)
    at = f"{path}.namespaceSelector"
    namespaces = parse_labels(peer["namespaceSelector"], at, errors)
    return LabelSelector(
        (*_pods(pods).requirements, *(_of_namespace(r) for r in namespaces.requirements))
    )


def _pods(selector: LabelSelector) -> LabelSelector:
    """Keys are those of pods as they are written; hosts and the like are never meant."""
    own = (replace(r, key="k8s:" + r.key.removeprefix("any:")) for r in selector.requirements)
    return LabelSelector((_IS_POD, *own))


def _of_namespace(requirement: Requirement) -> Requirement:
    key = requirement.key.removeprefix("any:").removeprefix("k8s:")
    return replace(requirement, key=NAMESPACE_LABEL_PREFIX + key)


def _port(value: Any, path: str, errors: Errors) -> Port | None:
    fields = errors.fields(value, path, ("protocol", "port", "endPort"))
    protocol = TRANSPORTS.get(fields.get("protocol") or "TCP")
    if protocol is None:
        remedy = f"one of {', '.join(TRANSPORTS)}"
        errors.add(f"{path}.protocol", f"unknown: {fields['protocol']!r}", remedy)
        return None
    port, last = fields.get("port"), fields.get("endPort")
    if port is None:
        if last is not None:
            errors.add(f"{path}.endPort", "there is no port that the range begins at", "give port")
        return Port(0, 0, protocol)
    if isinstance(port, str):
        if last is not None:
            errors.add(f"{path}.endPort", "a named port begins no range", "give numbers")
        return Port(0, 0, protocol, parse_port_name(port, f"{path}.port", errors))
    first = parse_number(port, f"{path}.port", errors)
    end = parse_number(last, f"{path}.endPort", errors) if last is not None else 0
    if end and end < first:
        errors.add(f"{path}.endPort", f"{end} is below {first}", "end a range at its highest port")
    return Port(first, end, protocol)
