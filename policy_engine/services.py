"""Services as peers: whom ``toServices`` means, by what is known of Services now.

Policy sees backends, never the address of a Service. Source: Cilium documentation, "Layer 3
policies", services based.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from policy_engine.identity import Prefix, Reserved
from policy_engine.labels import NAMESPACE, Labels
from policy_engine.rules import Policy, PolicyRef, Rule, Spec
from policy_engine.selector import (
    CIDRSelector,
    EntitySelector,
    LabelSelector,
    Requirement,
    Selector,
    ServiceSelector,
)

ServiceName = tuple[str, str]
"""(namespace, name)"""

_API_SERVER: ServiceName = ("default", "kubernetes")


@dataclass(frozen=True, slots=True)
class Service:
    """``selector`` empty: its backends are the addresses in ``backends``, and no pods."""

    labels: Labels
    selector: Mapping[str, str]
    backends: frozenset[Prefix] = frozenset()

    def peers(self, name: ServiceName) -> Iterator[Selector]:
        """Pods by their labels, or addresses outside the cluster, or the API server."""
        if name == _API_SERVER:
            yield EntitySelector(Reserved.KUBE_APISERVER.label.partition(":")[2])
        elif self.selector:
            yield LabelSelector(
                (
                    Requirement(NAMESPACE, "In", frozenset({name[0]})),
                    *(
                        Requirement(f"k8s:{key}", "In", frozenset({value}))
                        for key, value in sorted(self.selector.items())
                    ),
                )
            )
        else:
            yield from (CIDRSelector(prefix) for prefix in sorted(self.backends, key=str))


class Services:
    """Policies as they are written, into policies that name pods and addresses."""

    def __init__(self) -> None:
        self._services: dict[ServiceName, Service] = {}
        self._written: dict[PolicyRef, Policy] = {}  # those that name Services, by their ref

    def resolve(self, policy: Policy) -> Policy:
        """The policy with the peers that its Services have now."""
        if not _names_services(policy):
            return policy
        return replace(policy, specs=tuple(self._spec(spec) for spec in policy.specs))

    def remember(self, policy: Policy) -> None:
        """As it is written: :meth:`put` tells when it is to be resolved anew."""
        self.forget(policy.ref)
        if _names_services(policy):
            self._written[policy.ref] = policy

    def forget(self, ref: PolicyRef) -> None:
        self._written.pop(ref, None)

    def put(self, name: ServiceName, service: Service | None) -> list[Policy]:
        """None: it is gone. The policies, as written, that mean it or meant it."""
        before = self._services.pop(name, None)
        if service is not None:
            self._services[name] = service
        if before == service:
            return []
        known = [each for each in (before, service) if each is not None]
        return [
            policy
            for policy in self._written.values()
            if any(
                selector.selects(name, each.labels)
                for selector in _selectors(policy)
                for each in known
            )
        ]

    def _spec(self, spec: Spec) -> Spec:
        return replace(spec, egress=spec.egress and tuple(self._rule(rule) for rule in spec.egress))

    def _rule(self, rule: Rule) -> Rule:
        peers: dict[Selector, None] = {}
        for peer in rule.peers or ():
            if isinstance(peer, ServiceSelector):
                peers |= dict.fromkeys(self._selected(peer))
            else:
                peers[peer] = None
        return rule if rule.peers is None else replace(rule, peers=tuple(peers))

    def _selected(self, selector: ServiceSelector) -> Iterator[Selector]:
        for name, service in sorted(self._services.items(), key=lambda item: item[0]):
            if selector.selects(name, service.labels):
                yield from service.peers(name)


def _selectors(policy: Policy) -> Iterator[ServiceSelector]:
    for spec in policy.specs:
        for rule in spec.egress or ():
            for peer in rule.peers or ():
                if isinstance(peer, ServiceSelector):
                    yield peer


def _names_services(policy: Policy) -> bool:
    return next(_selectors(policy), None) is not None
