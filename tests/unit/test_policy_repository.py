"""What policies mean for endpoints, and that a change costs what it touches."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_engine.identity import FIRST_CIDR_IDENTITY, IdentityAllocator
from policy_engine.labels import pod_labels
from policy_engine.model import Action, Direction, EndpointPolicy, Parser, Protocol
from policy_engine.parse import parse_policy
from policy_engine.repository import PolicyRepository, Subject
from policy_engine.trace import decide

SERVER, CLIENT, OTHER = 256, 257, 258
HOST, WORLD = 1, 2
TCP80 = {"port": "80", "protocol": "TCP"}
HTTP80 = {"ports": [TCP80], "rules": {"http": [{"path": "/a"}]}}


def labels(app: str) -> dict[str, str]:
    return pod_labels("default", {"app": app}, {})


def repository() -> PolicyRepository:
    """Endpoint 1 is the server; client and other are known identities."""
    made = PolicyRepository()
    for number, app in ((SERVER, "server"), (CLIENT, "client"), (OTHER, "other")):
        made.upsert_identity(number, labels(app))
    made.upsert_endpoint(1, Subject(SERVER, labels("server")))
    return made


def add(
    to: PolicyRepository, name: str, app: str = "server", audit: bool = False, **spec: Any
) -> set[int]:
    manifest = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {
            "name": name,
            "annotations": {"policy.sidegate.io/audit": str(audit).lower()},
        },
        "spec": {"endpointSelector": {"matchLabels": {"app": app}}, **spec},
    }
    policy, errors = parse_policy(manifest, lambda _: None)
    assert policy, errors
    return to.upsert_policy(policy)


def peer(app: str) -> list[dict[str, Any]]:
    return [{"matchLabels": {"app": app}}]


def of(made: PolicyRepository) -> EndpointPolicy:
    policy = made.policy_for(1)
    assert policy
    return policy


def verdict(made: PolicyRepository, identity: int, port: int = 80) -> str:
    """allow, deny, http or kafka; "open" where ingress is not enforced."""
    policy = of(made)
    if not policy.ingress.enforced:
        return "open"
    found = decide(policy, Direction.INGRESS, identity, Protocol.TCP, port)
    return str(found.parser) if found.action is Action.REDIRECT else found.action.name.lower()


@pytest.mark.parametrize(
    ("ingress", "client", "other", "world"),
    [
        (None, "open", "open", "open"),
        ([], "deny", "deny", "deny"),
        ([{}], "deny", "deny", "deny"),
        ([{"toPorts": []}], "deny", "deny", "deny"),
        ([{"fromEndpoints": []}], "deny", "deny", "deny"),
        ([{"fromEndpoints": [{}]}], "allow", "allow", "deny"),
        ([{"fromEndpoints": peer("client")}], "allow", "deny", "deny"),
        ([{"fromEndpoints": peer("nobody")}], "deny", "deny", "deny"),
        ([{"fromEntities": ["cluster"]}], "allow", "allow", "deny"),
        ([{"fromEntities": ["world"]}], "deny", "deny", "allow"),
        ([{"fromEntities": ["all"]}], "allow", "allow", "allow"),
        ([{"fromEndpoints": peer("client"), "toPorts": [HTTP80]}], "http", "deny", "deny"),
        ([{"toPorts": [HTTP80]}], "http", "http", "http"),
        (
            [{"toPorts": [HTTP80]}, {"fromEndpoints": peer("client")}],
            *("allow", "http", "http"),
        ),
        (
            [{"toPorts": [HTTP80]}, {"fromEndpoints": peer("client"),
                                     "toPorts": [{"ports": [TCP80]}]}],
            *("allow", "http", "http"),
        ),
        ([{"toPorts": [{"ports": [{"port": "81", "protocol": "TCP"}]}]}], "deny", "deny", "deny"),
    ],
)  # fmt: skip
def test_meaning(ingress: Any, client: str, other: str, world: str) -> None:
    made = repository()
    add(made, "p", **({"egress": []} if ingress is None else {"ingress": ingress}))
    assert [verdict(made, who) for who in (CLIENT, OTHER, WORLD)] == [client, other, world]


@pytest.mark.parametrize("whom", [{}, {"fromEndpoints": peer("client")}])
def test_two_protocols_on_one_port_let_nothing_pass(whom: dict[str, Any]) -> None:
    made = repository()
    kafka = {"ports": [TCP80], "rules": {"kafka": [{"role": "produce"}]}}
    add(made, "p", ingress=[{"toPorts": [HTTP80]}, {**whom, "toPorts": [kafka]}])
    assert verdict(made, CLIENT) == "deny"
    assert verdict(made, OTHER) == ("http" if whom else "deny")


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("whom", [{}, {"fromEndpoints": peer("client")}])
def test_what_one_rule_allows_two_protocols_do_not_take_away(
    order: tuple[int, ...], whom: dict[str, Any]
) -> None:
    made = repository()
    kafka = {"ports": [TCP80], "rules": {"kafka": [{"role": "produce"}]}}
    rules = [{"toPorts": [HTTP80]}, {"toPorts": [kafka]}, {**whom, "toPorts": [{"ports": [TCP80]}]}]
    add(made, "p", ingress=[rules[number] for number in order])
    assert verdict(made, CLIENT) == "allow"
    assert verdict(made, OTHER) == ("deny" if whom else "allow")


@pytest.mark.parametrize(
    "selector",
    [
        {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "team-b"}},
        {"matchLabels": {"io.cilium.k8s.namespace.labels.team": "b"}},
        {"matchExpressions": [{"key": "reserved:host", "operator": "DoesNotExist"}]},
    ],
)
def test_a_policy_never_leaves_its_namespace(selector: dict[str, Any]) -> None:
    made = repository()
    made.upsert_endpoint(2, Subject(300, pod_labels("team-b", {"app": "server"}, {"team": "b"})))
    assert 2 not in add(made, "p", endpointSelector=selector, ingress=[])


def test_a_pod_cannot_name_its_own_namespace() -> None:
    claimed = {
        "io.kubernetes.pod.namespace": "kube-system",
        "io.cilium.k8s.namespace.labels.team": "b",
        "io.cilium.k8s.policy.serviceaccount": "admin",
        "app": "a",
    }
    assert pod_labels("default", claimed, {}) == labels("a")


def test_an_except_is_told_apart_by_its_own_identity() -> None:
    made = repository()
    cidr = {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}
    add(made, "p", ingress=[{"fromCIDRSet": [cidr]}])
    by_prefix = {str(p): n for p, n in made.cidr_identities().items()}
    assert verdict(made, by_prefix["10.0.0.0/8"]) == "allow"
    assert verdict(made, by_prefix["10.1.0.0/16"]) == "deny"
    add(made, "q", ingress=[{"fromEntities": ["world"]}])
    assert verdict(made, by_prefix["10.1.0.0/16"]) == "allow", "it is in the world"
    made.delete_policy(next(ref for ref in made.policies() if ref.name == "p"))
    assert not made.cidr_identities()


def test_audit_counts_only_where_nothing_enforces() -> None:
    made = repository()
    add(made, "trial", audit=True, ingress=[{"fromEndpoints": peer("client")}])
    assert of(made).ingress.audit
    add(made, "real", ingress=[{"fromEndpoints": peer("other")}])
    assert not of(made).ingress.audit
    assert [verdict(made, who) for who in (CLIENT, OTHER)] == ["deny", "allow"]


def test_an_identity_that_comes_later_is_selected_then() -> None:
    made = repository()
    add(made, "p", ingress=[{"fromEndpoints": peer("late"), "toPorts": [HTTP80]}])
    assert made.upsert_identity(300, labels("late")) == {1}
    assert verdict(made, 300) == "http"
    assert made.remove_identity(300) == {1}
    assert verdict(made, 300) == "deny"


def test_a_change_touches_only_the_endpoints_that_it_selects() -> None:
    made = repository()
    for number in range(1000):
        made.upsert_endpoint(10 + number, Subject(OTHER, labels(f"app-{number}")))
        add(made, f"p-{number}", f"app-{number}", ingress=[{"fromEndpoints": peer("client")}])
    before = made.compilations
    affected = add(made, "one", ingress=[{"toPorts": [HTTP80]}])
    assert affected == {1}
    for endpoint_id in affected:
        made.policy_for(endpoint_id)
    assert made.compilations - before == 1


RULES = st.sampled_from(
    [
        {},
        {"fromEndpoints": []},
        {"fromEndpoints": peer("client")},
        {"fromEndpoints": peer("client"), "toPorts": [HTTP80]},
        {"fromEntities": ["world"]},
        {"fromCIDR": ["10.0.0.0/8"]},
        {"toPorts": [{"ports": [TCP80]}]},
    ]
)
STEPS = st.lists(
    st.tuples(st.sampled_from("abc"), st.lists(RULES, max_size=2) | st.none()), max_size=8
)


@given(STEPS)
def test_step_by_step_is_as_from_nothing(steps: list[tuple[str, list[Any] | None]]) -> None:
    made = repository()
    last: dict[str, list[Any]] = {}
    for name, rules in steps:
        if rules is None:
            for ref in [r for r in made.policies() if r.name == name]:
                made.delete_policy(ref)
            last.pop(name, None)
        else:
            add(made, name, ingress=rules)
            last[name] = rules
    fresh = repository()
    for name, rules in last.items():
        add(fresh, name, ingress=rules)
    identities = (CLIENT, OTHER, HOST, WORLD)
    assert [verdict(made, who) for who in identities] == [verdict(fresh, who) for who in identities]
    assert {str(p) for p in made.cidr_identities()} == {str(p) for p in fresh.cidr_identities()}


def test_numbers_last_and_are_the_last_to_be_used_again() -> None:
    first = IdentityAllocator(256, 258)
    one = first.acquire({"k8s:app": "a"})
    assert first.release({"k8s:app": "a"}) == one
    assert first.acquire({"k8s:app": "b"}) != one
    assert first.acquire({"k8s:app": "a"}) == one
    second = IdentityAllocator(256, 258)
    second.restore(first.export())
    assert second.acquire({"k8s:app": "b"}) == first.acquire({"k8s:app": "b"})


def test_cidrs_have_numbers_of_their_own() -> None:
    made = repository()
    add(made, "p", ingress=[{"fromCIDR": ["10.0.0.0/8"]}])
    assert min(made.cidr_identities().values()) >= FIRST_CIDR_IDENTITY
    assert Parser.HTTP not in {entry.parser for entry in of(made).entries.values()}
