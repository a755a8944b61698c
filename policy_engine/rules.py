"""Policies of every kind as parsed: typed and validated."""

from __future__ import annotations

from dataclasses import dataclass

from policy_engine.model import Authentication, Direction, HttpRule, KafkaRule, Parser, Protocol
from policy_engine.selector import LabelSelector, Selector


@dataclass(frozen=True, slots=True)
class PolicyRef:
    """``kind`` is one of ``parse.KINDS``; ``namespace`` is "" for clusterwide ones."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return "/".join(part for part in (self.kind, self.namespace, self.name) if part)


@dataclass(frozen=True, slots=True)
class Port:
    """``name`` is that of a container port, whose numbers the pods say; "" for numbers."""

    port: int
    end_port: int
    protocol: Protocol
    name: str = ""


@dataclass(frozen=True, slots=True)
class PortSet:
    """One ``toPorts`` item. ``parser`` None: L4 only."""

    ports: tuple[Port, ...]
    parser: Parser | None = None
    http: tuple[HttpRule, ...] = ()
    kafka: tuple[KafkaRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One ``ingress`` or ``egress`` item. ``peers`` None: any peer; (): no peer at all.

    ``ports`` None: every port and protocol.
    """

    peers: tuple[Selector, ...] | None
    ports: tuple[PortSet, ...] | None
    deny: bool = False
    authentication: Authentication = Authentication.NONE


@dataclass(frozen=True, slots=True)
class Spec:
    """One ``spec``. ``ingress`` None: the direction is not touched by this spec.

    ``default_allow`` has the directions that its rules do not put into default deny.
    """

    path: str  # "" for spec, "specs[1]" otherwise
    subject: LabelSelector
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None
    default_allow: frozenset[Direction] = frozenset()

    def rules(self, direction: Direction) -> tuple[Rule, ...] | None:
        return self.ingress if direction is Direction.INGRESS else self.egress


@dataclass(frozen=True, slots=True)
class Policy:
    ref: PolicyRef
    specs: tuple[Spec, ...]
    audit: bool = False
