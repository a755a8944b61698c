"""Which pods policies select, and what they ask of them. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from policy_engine.labels import pod_labels
from policy_engine.parse import parse_policy
from policy_engine.rules import Policy, Rule
from policy_engine.selector import CIDRSelector, EntitySelector

Manifest = Mapping[str, Any]
# What has no certificate of the mesh, whatever its namespace says.
_OUTSIDE = frozenset({"world", "world-ipv4", "world-ipv6", "host", "remote-node", "unmanaged"})


@dataclass(frozen=True, slots=True)
class Selected:
    """A pod and what policies say of it. ``ports`` are those with L7 rules on the way in;
    ``outsiders`` the peers that are let in and can have no certificate."""

    pod: Manifest
    l7: tuple[str, ...] = ()
    ports: frozenset[int] = field(default_factory=frozenset)
    outsiders: tuple[str, ...] = ()

    @property
    def namespace(self) -> str:
        return str(self.pod["metadata"]["namespace"])

    @property
    def name(self) -> str:
        return str(self.pod["metadata"]["name"])

    def annotation(self, key: str) -> str:
        return str((self.pod["metadata"].get("annotations") or {}).get(key, ""))


def selected(
    pods: Iterable[Manifest], namespaces: Iterable[Manifest], manifests: Iterable[Manifest]
) -> Iterator[Selected]:
    """Every pod with a network of its own; policies that are not valid select nothing."""
    own = {n["metadata"]["name"]: n["metadata"].get("labels") or {} for n in namespaces}
    policies = [p for p, _ in (parse_policy(m, lambda _: None) for m in manifests) if p]
    for pod in pods:
        spec, metadata = pod.get("spec") or {}, pod["metadata"]
        if spec.get("hostNetwork"):
            continue
        labels = pod_labels(
            metadata["namespace"], metadata.get("labels") or {},
            own.get(metadata["namespace"], {}), spec.get("serviceAccountName", "default"),
        )  # fmt: skip
        yield _one(pod, labels, policies)


def _one(pod: Manifest, labels: Mapping[str, str], policies: Iterable[Policy]) -> Selected:
    l7, ports, outsiders = [], set(), []
    for policy in policies:
        for spec in policy.specs:
            if not spec.subject.matches(labels):
                continue
            inward = list(spec.ingress or ())
            if any(_parsed(rule) for rule in (*inward, *(spec.egress or ()))):
                l7.append(str(policy.ref))
            ports |= {port for rule in inward for port in _parsed(rule)}
            if any(_from_outside(rule) for rule in inward):
                outsiders.append(str(policy.ref))
    return Selected(pod, tuple(dict.fromkeys(l7)), frozenset(ports), tuple(outsiders))


def _parsed(rule: Rule) -> list[int]:
    """Ports of a rule with L7 rules: the first of each range, 0 for one by name."""
    sets = [each for each in rule.ports or () if each.parser is not None]
    return [port.port for each in sets for port in each.ports]


def _from_outside(rule: Rule) -> bool:
    if rule.deny:
        return False
    return any(
        isinstance(peer, CIDRSelector)
        or (isinstance(peer, EntitySelector) and peer.entity in _OUTSIDE)
        for peer in rule.peers or ()
    )
