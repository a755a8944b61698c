"""Which identities a rule's peers are: label selectors, entities and CIDRs, all of one shape.

Source: Kubernetes LabelSelector; Cilium documentation, "Layer 3 policies".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from policy_engine.identity import Prefix, Reserved
from policy_engine.labels import CLUSTER, NAMESPACE, Labels, lookup


@dataclass(frozen=True, slots=True)
class Requirement:
    """``operator`` is In, NotIn, Exists or DoesNotExist. NotIn matches an absent key too."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Labels) -> bool:
        value = lookup(labels, self.key)
        match self.operator:
            case "In":
                return value is not None and value in self.values
            case "NotIn":
                return value is None or value not in self.values
            case "Exists":
                return value is not None
            case _:
                return value is None


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All requirements must hold. Selects pods and hosts, never CIDR identities."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Labels) -> bool:
        return not is_world(labels) and all(r.matches(labels) for r in self.requirements)

    def scoped(self, namespace: str) -> LabelSelector:
        """For peers: held to a namespace unless it names one, or a reserved label, itself."""
        for requirement in self.requirements:
            bare = requirement.key.partition(":")[2]
            if bare == NAMESPACE.partition(":")[2] or requirement.key.startswith("reserved:"):
                return self
            if bare.startswith("io.cilium.k8s.namespace.labels."):
                return self
        return self.within(namespace)

    def within(self, namespace: str) -> LabelSelector:
        """For subjects: held to a namespace whatever it names; a policy never leaves its own."""
        own = Requirement(NAMESPACE, "In", frozenset({namespace}))
        return LabelSelector((*self.requirements, own))


@dataclass(frozen=True, slots=True)
class EntitySelector:
    """One of :data:`ENTITIES` other than ``all`` and :data:`FAMILIES`."""

    entity: str

    def matches(self, labels: Labels) -> bool:
        if self.entity == "cluster":
            return CLUSTER in labels or any(label in labels for label in _CLUSTER_RESERVED)
        return f"reserved:{self.entity}" in labels


@dataclass(frozen=True, slots=True)
class CIDRSelector:
    """CIDR identities inside ``prefix`` and in none of ``excepts``."""

    prefix: Prefix
    excepts: tuple[Prefix, ...] = ()

    def matches(self, labels: Labels) -> bool:
        own = cidr_of(labels)
        if own is None:
            return False
        return _inside(own, self.prefix) and not any(_inside(own, e) for e in self.excepts)


@dataclass(frozen=True, slots=True)
class ServiceSelector:
    """Services by name, or by labels. ``namespace`` "" means those of every namespace.

    :class:`policy_engine.services.Services` puts their backends in its place: no identity is one.
    """

    namespace: str
    name: str = ""
    labels: LabelSelector | None = None

    def selects(self, name: tuple[str, str], labels: Labels) -> bool:
        """``name`` is (namespace, name) of a Service, ``labels`` are its own, without source."""
        if self.namespace not in ("", name[0]):
            return False
        if self.labels is None:
            return self.name == name[1]
        return self.labels.matches({f"k8s:{key}": value for key, value in labels.items()})

    def matches(self, _: Labels) -> bool:
        return False


Selector = LabelSelector | EntitySelector | CIDRSelector | ServiceSelector

FAMILIES = {"world-ipv4": ip_network("0.0.0.0/0"), "world-ipv6": ip_network("::/0")}
"""Entities that are CIDRs."""

ENTITIES = (
    "all",
    "world",
    *FAMILIES,
    "cluster",
    "host",
    "remote-node",
    "kube-apiserver",
    "ingress",
    "health",
    "init",
    "unmanaged",
    "none",
)
_CLUSTER_RESERVED = frozenset(r.label for r in Reserved if r is not Reserved.WORLD)


def is_world(labels: Labels) -> bool:
    return Reserved.WORLD.label in labels


def cidr_of(labels: Labels) -> Prefix | None:
    """The prefix of a CIDR identity, None for any other."""
    for key in labels:
        if key.startswith("cidr:"):
            return ip_network(key[len("cidr:") :])
    return None


def _inside(inner: Prefix, outer: Prefix) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]


def matching(selector: Selector, identities: Mapping[int, Labels]) -> set[int]:
    """The numbers of the identities that a selector selects now."""
    return {number for number, labels in identities.items() if selector.matches(labels)}
