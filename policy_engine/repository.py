"""Policies, identities and endpoints, and what follows from them for each endpoint.

Incremental by object: a change returns the endpoints it concerns, and only those are compiled.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from policy_engine.compile import entries_of
from policy_engine.identity import (
    FIRST_CIDR_IDENTITY,
    RESERVED_LABELS,
    IdentityAllocator,
    Prefix,
    cidr_labels,
)
from policy_engine.labels import Labels
from policy_engine.model import (
    Direction,
    DirectionPolicy,
    EndpointPolicy,
    PortRule,
    Protocol,
)
from policy_engine.rules import Policy, PolicyRef, Port, Rule, Spec
from policy_engine.selector import CIDRSelector, Selector, matching
from policy_engine.services import Service, ServiceName, Services

NamedPorts = Mapping[str, frozenset[tuple[int, Protocol]]]
EMPTY: NamedPorts = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Subject:
    """An endpoint as policy sees it."""

    identity: int
    labels: Labels
    audit: bool = False
    named_ports: NamedPorts = field(default_factory=lambda: EMPTY)


class PolicyRepository:
    """See the module. Not thread safe; every mutator returns the endpoint ids it concerns."""

    def __init__(self) -> None:
        self._policies: dict[PolicyRef, Policy] = {}
        self._identities: dict[int, Labels] = dict(RESERVED_LABELS)
        self._subjects: dict[int, Subject] = {}
        self._members: dict[Selector, set[int]] = {}
        self._users: dict[Selector, dict[PolicyRef, None]] = {}
        self._endpoints_of: dict[PolicyRef, set[int]] = {}
        self._policies_of: dict[int, set[PolicyRef]] = defaultdict(set)
        self._cidrs = IdentityAllocator(FIRST_CIDR_IDENTITY, (1 << 25) - 1)
        self._prefixes: dict[Prefix, int] = {}
        self._named_ports: dict[int, NamedPorts] = {}
        self._services = Services()
        self.compilations = 0  # how often an endpoint was compiled, for metrics and tests

    # -- objects in ---------------------------------------------------------------------------

    def upsert_policy(self, policy: Policy) -> set[int]:
        """Raises IdentitiesExhausted when its CIDRs find no number; what was there holds on."""
        affected = self._upsert(self._services.resolve(policy))
        self._services.remember(policy)
        return affected

    def upsert_service(
        self,
        namespace: str,
        name: str,
        labels: Labels,
        selector: Mapping[str, str],
        backends: frozenset[Prefix] = frozenset(),
    ) -> set[int]:
        """``labels`` and ``selector`` are as in the manifest; without a selector, ``backends``
        count. Raises as :meth:`upsert_policy` does."""
        return self._put_service((namespace, name), Service(labels, selector, backends))

    def delete_service(self, namespace: str, name: str) -> set[int]:
        return self._put_service((namespace, name), None)

    def _put_service(self, name: ServiceName, service: Service | None) -> set[int]:
        return set().union(
            *(self.upsert_policy(policy) for policy in self._services.put(name, service))
        )

    def _upsert(self, policy: Policy) -> set[int]:
        old = self._policies.get(policy.ref)
        affected = self._acquire_prefixes(policy)
        self._policies[policy.ref] = policy
        for selector in _selectors(policy):
            if selector not in self._members:
                self._members[selector] = matching(selector, self._identities)
            self._users.setdefault(selector, {})[policy.ref] = None
        if old is not None:
            affected |= self._drop(old, keep=set(_selectors(policy)))
        selected = {i for i, s in self._subjects.items() if _selects(policy, s)}
        self._endpoints_of[policy.ref] = selected
        for endpoint_id in selected:
            self._policies_of[endpoint_id].add(policy.ref)
        return affected | selected

    def delete_policy(self, ref: PolicyRef) -> set[int]:
        old = self._policies.pop(ref, None)
        self._services.forget(ref)
        return self._drop(old, keep=set()) if old is not None else set()

    def upsert_identity(self, identity: int, labels: Labels) -> set[int]:
        if self._identities.get(identity) == labels:
            return set()
        affected = self.remove_identity(identity)
        self._identities[identity] = labels
        for selector, members in self._members.items():
            if selector.matches(labels):
                members.add(identity)
                affected |= self._endpoints_using(selector)
        return affected

    def remove_identity(self, identity: int) -> set[int]:
        affected: set[int] = set()
        if self._identities.pop(identity, None) is not None:
            for selector, members in self._members.items():
                if identity in members:
                    members.discard(identity)
                    affected |= self._endpoints_using(selector)
        return affected

    def set_named_ports(self, identity: int, ports: NamedPorts) -> set[int]:
        """Of the pods that have an identity, for rules of egress that name a port."""
        if self._named_ports.get(identity, EMPTY) == ports:
            return set()
        if ports:
            self._named_ports[identity] = ports
        else:
            del self._named_ports[identity]
        return set().union(
            *(self._endpoints_of[ref] for ref, p in self._policies.items() if _names_ports(p))
        )

    def upsert_endpoint(self, endpoint_id: int, subject: Subject) -> set[int]:
        self.remove_endpoint(endpoint_id)
        self._subjects[endpoint_id] = subject
        for ref, policy in self._policies.items():
            if _selects(policy, subject):
                self._endpoints_of[ref].add(endpoint_id)
                self._policies_of[endpoint_id].add(ref)
        return {endpoint_id}

    def remove_endpoint(self, endpoint_id: int) -> None:
        self._subjects.pop(endpoint_id, None)
        for ref in self._policies_of.pop(endpoint_id, ()):
            self._endpoints_of[ref].discard(endpoint_id)

    # -- what follows -------------------------------------------------------------------------

    def identities(self) -> Mapping[int, Labels]:
        return self._identities

    def cidr_identities(self) -> Mapping[Prefix, int]:
        """The prefixes that the datapath must tell apart, with their identities."""
        return self._prefixes

    def endpoints_of(self, ref: PolicyRef) -> frozenset[int]:
        return frozenset(self._endpoints_of.get(ref, ()))

    def policies(self) -> Mapping[PolicyRef, Policy]:
        return self._policies

    def policy_for(self, endpoint_id: int) -> EndpointPolicy | None:
        """None for an endpoint that is not known."""
        subject = self._subjects.get(endpoint_id)
        if subject is None:
            return None
        self.compilations += 1
        refs = sorted(self._policies_of[endpoint_id], key=str)
        ingress, egress = (self._direction(subject, refs, d) for d in Direction)
        return EndpointPolicy(
            endpoint_id, subject.identity, ingress, egress, entries_of(ingress, egress)
        )

    def _direction(
        self, subject: Subject, refs: Iterable[PolicyRef], direction: Direction
    ) -> DirectionPolicy:
        """Audit policies count only where no other policy enforces the direction."""
        by_audit: dict[bool, list[PortRule]] = {}
        default_allow = {True: True, False: True}
        for ref in refs:
            policy = self._policies[ref]
            for spec in policy.specs:
                rules = spec.rules(direction)
                if rules is None or not spec.subject.matches(subject.labels):
                    continue
                into = by_audit.setdefault(policy.audit, [])
                default_allow[policy.audit] &= direction in spec.default_allow
                for number, rule in _numbered(rules):
                    into += self._port_rules(ref, spec, direction, number, rule, subject)
        if not by_audit:
            return DirectionPolicy()
        audit = False not in by_audit
        chosen = tuple(by_audit[audit])
        return DirectionPolicy(True, audit or subject.audit, chosen, default_allow[audit])

    def _port_rules(
        self,
        ref: PolicyRef,
        spec: Spec,
        direction: Direction,
        number: int,
        rule: Rule,
        subject: Subject,
    ) -> Iterable[PortRule]:
        section = direction.name.lower() + ("Deny" if rule.deny else "")
        origin = f"{ref}#{spec.path + '.' if spec.path else ''}{section}[{number}]"
        peers: frozenset[int] | None = None
        if rule.peers is not None:
            peers = frozenset().union(*(self._members[selector] for selector in rule.peers))
            if not peers:
                return
        if rule.ports is None:
            yield PortRule(origin, peers, deny=rule.deny, authentication=rule.authentication)
            return
        for index, ports in enumerate(rule.ports):
            where = f"{origin}.toPorts[{index}]"
            for named in ports.ports:
                for who, port in self._numbers(direction, peers, named, subject):
                    yield PortRule(
                        where,
                        who,
                        port.protocol,
                        port.port,
                        port.end_port,
                        rule.deny,
                        ports.parser,
                        ports.http,
                        ports.kafka,
                        rule.authentication,
                    )

    def _numbers(
        self, direction: Direction, peers: frozenset[int] | None, port: Port, subject: Subject
    ) -> Iterable[tuple[frozenset[int] | None, Port]]:
        """A named port as numbers: the subject's own, or for egress those of each peer."""
        if not port.name:
            yield peers, port
        elif direction is Direction.INGRESS:
            for number in sorted(_of_name(subject.named_ports, port)):
                yield peers, replace(port, port=number)
        else:
            users: dict[int, set[int]] = {}
            for identity in self._named_ports if peers is None else peers:
                for number in _of_name(self._named_ports.get(identity, EMPTY), port):
                    users.setdefault(number, set()).add(identity)
            for number, who in sorted(users.items()):
                yield frozenset(who), replace(port, port=number)

    def _endpoints_using(self, selector: Selector) -> set[int]:
        users = self._users.get(selector, {})
        return set().union(*(self._endpoints_of.get(ref, set()) for ref in users))

    def _acquire_prefixes(self, policy: Policy) -> set[int]:
        affected: set[int] = set()
        for prefix in _prefixes(policy):
            labels = cidr_labels(prefix)
            number = self._cidrs.acquire(labels)
            if prefix not in self._prefixes:
                self._prefixes[prefix] = number
                affected |= self.upsert_identity(number, labels)
        return affected

    def _drop(self, old: Policy, keep: set[Selector]) -> set[int]:
        """Forget what ``old`` held; ``keep`` are the selectors its successor still uses."""
        affected = self._endpoints_of.pop(old.ref, set())
        for endpoint_id in affected:
            self._policies_of[endpoint_id].discard(old.ref)
        for selector in set(_selectors(old)) - keep:
            self._users[selector].pop(old.ref, None)
            if not self._users[selector]:
                del self._users[selector], self._members[selector]
        for prefix in _prefixes(old):
            number = self._cidrs.release(cidr_labels(prefix))
            if number is not None:
                del self._prefixes[prefix]
                affected = affected | self.remove_identity(number)
        return affected


def _numbered(rules: Iterable[Rule]) -> Iterable[tuple[int, Rule]]:
    """Each rule with its place in its own list: those that deny have one of theirs."""
    seen = {False: 0, True: 0}
    for rule in rules:
        yield seen[rule.deny], rule
        seen[rule.deny] += 1


def _of_name(ports: NamedPorts, port: Port) -> Iterable[int]:
    return (n for n, protocol in ports.get(port.name, ()) if protocol is port.protocol)


def _names_ports(policy: Policy) -> bool:
    return any(
        port.name
        for spec in policy.specs
        for rule in spec.egress or ()
        for ports in rule.ports or ()
        for port in ports.ports
    )


def _selects(policy: Policy, subject: Subject) -> bool:
    return any(spec.subject.matches(subject.labels) for spec in policy.specs)


def _selectors(policy: Policy) -> Iterable[Selector]:
    for spec in policy.specs:
        for direction in Direction:
            for rule in spec.rules(direction) or ():
                yield from rule.peers or ()


def _prefixes(policy: Policy) -> Iterable[Prefix]:
    """A CIDR and each of its excepts: the longest prefix tells which of them an address is in."""
    for selector in _selectors(policy):
        if isinstance(selector, CIDRSelector):
            yield selector.prefix
            yield from selector.excepts
