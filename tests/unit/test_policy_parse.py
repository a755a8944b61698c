"""Policies as written: what is refused, where, and that nothing written ever raises."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy_engine.parse import parse_policy

PORTS = [{"port": "80", "protocol": "TCP"}]


def fine(_: str) -> str | None:
    return None


def cnp(rule: Any = None, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p", "annotations": {"policy.sidegate.io/audit": "false"}},
        "spec": {"endpointSelector": {}, "ingress": [rule if rule is not None else {}], **spec},
    }


def with_rules(**rules: Any) -> dict[str, Any]:
    return cnp({"toPorts": [{"ports": PORTS, "rules": rules}]})


RULE = "spec.ingress[0]"
HTTP = f"{RULE}.toPorts[0].rules.http[0]"
KAFKA = f"{RULE}.toPorts[0].rules.kafka[0]"


@pytest.mark.parametrize(
    ("manifest", "field"),
    [
        (
            cnp(ingressDeny=[{"toPorts": [{"ports": PORTS, "rules": {"http": [{}]}}]}]),
            "spec.ingressDeny[0].toPorts",
        ),
        (cnp(egressDeny=[{"toCIDR": ["x"]}]), "spec.egressDeny[0].toCIDR[0]"),
        (cnp(nodeSelector={}), "spec.nodeSelector"),
        (cnp(enableDefaultDeny={"ingress": "no"}), "spec.enableDefaultDeny.ingress"),
        (cnp(ingres=[]), "spec.ingres"),
        (cnp(endpointSelector={"matchLabels": {"a": 1}}), "spec.endpointSelector.matchLabels.a"),
        (cnp({"fromRequires": []}), f"{RULE}.fromRequires"),
        (cnp({"fromGroups": []}), f"{RULE}.fromGroups"),
        (cnp({"fromNodes": []}), f"{RULE}.fromNodes"),
        (cnp({"icmps": []}), f"{RULE}.icmps"),
        (cnp({"authentication": {}}), f"{RULE}.authentication.mode"),
        (cnp({"authentication": {"mode": "maybe"}}), f"{RULE}.authentication.mode"),
        (cnp({"authentication": {"mode": ["required"]}}), f"{RULE}.authentication.mode"),
        (cnp({"authentication": "required"}), f"{RULE}.authentication"),
        (cnp(ingressDeny=[{"authentication": {"mode": "required"}}]),
         "spec.ingressDeny[0].authentication"),
        (cnp({"fromEntities": ["moon"]}), f"{RULE}.fromEntities[0]"),
        (cnp({"fromEntities": [{}]}), f"{RULE}.fromEntities[0]"),
        (cnp({"fromCIDR": ["10.0.0.0/33"]}), f"{RULE}.fromCIDR[0]"),
        (cnp({"fromCIDRSet": [{"cidrGroupRef": "x"}]}), f"{RULE}.fromCIDRSet[0].cidrGroupRef"),
        (
            cnp({"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/8"]}]}),
            f"{RULE}.fromCIDRSet[0].except[0]",
        ),
        (cnp({"toPorts": [{"ports": [{"port": 80}]}]}), f"{RULE}.toPorts[0].ports[0].port"),
        (cnp({"toPorts": [{"ports": [{"port": "we_b"}]}]}), f"{RULE}.toPorts[0].ports[0].port"),
        (cnp({"toPorts": [{"ports": [{"port": "70000"}]}]}), f"{RULE}.toPorts[0].ports[0].port"),
        (
            cnp({"toPorts": [{"ports": [{"port": "9", "endPort": 1}]}]}),
            f"{RULE}.toPorts[0].ports[0].endPort",
        ),
        (
            cnp({"toPorts": [{"ports": [{"port": "1", "protocol": 5}]}]}),
            f"{RULE}.toPorts[0].ports[0].protocol",
        ),
        (cnp({"toPorts": [{"serverNames": []}]}), f"{RULE}.toPorts[0].serverNames"),
        (cnp({"toPorts": [{"terminatingTLS": {}}]}), f"{RULE}.toPorts[0].terminatingTLS"),
        (with_rules(dns=[]), f"{RULE}.toPorts[0].rules.dns"),
        (with_rules(l7proto="x"), f"{RULE}.toPorts[0].rules.l7proto"),
        (with_rules(http=[{}], kafka=[{}]), f"{RULE}.toPorts[0].rules"),
        (with_rules(http=[{"pth": "/"}]), f"{HTTP}.pth"),
        (with_rules(http=[{"headerMatches": [{"name": "a", "mismatch": "LOG"}]}]),
         f"{HTTP}.headerMatches[0].mismatch"),
        (with_rules(kafka=[{"role": "produce", "apiKey": "fetch"}]), f"{KAFKA}.apiKey"),
        (with_rules(kafka=[{"role": "admin"}]), f"{KAFKA}.role"),
        (with_rules(kafka=[{"apiKey": "fetsch"}]), f"{KAFKA}.apiKey"),
        (with_rules(kafka=[{"topic": "a b"}]), f"{KAFKA}.topic"),
        (cnp({"toPorts": [{"rules": {"http": [{}]}}]}), f"{RULE}.toPorts[0].ports"),
        *(
            (
                cnp({"toPorts": [{"ports": [{"port": "1", "protocol": protocol}],
                                  "rules": {"http": [{}]}}]}),
                f"{RULE}.toPorts[0].ports[0].protocol",
            )
            for protocol in ("UDP", "udp", "sctp")
        ),
        (cnp({"toPorts": [{"ports": []}]}), f"{RULE}.toPorts[0].ports"),
        (cnp({"toPorts": [{}]}), f"{RULE}.toPorts[0].ports"),
        (cnp({"toPorts": [{"ports": [{"port": "\u0661"}]}]}), f"{RULE}.toPorts[0].ports[0].port"),
        (cnp({"toPorts": [{"ports": [{"port": "9" * 5000}]}]}), f"{RULE}.toPorts[0].ports[0].port"),
        (with_rules(kafka=[{"apiVersion": "9" * 5000}]), f"{KAFKA}.apiVersion"),
        (with_rules(kafka=[{"apiKey": "9" * 5000}]), f"{KAFKA}.apiKey"),
        ({**cnp(), "metadata": {"name": "p", "annotations": ["x"]}}, "metadata.annotations"),
        (["no", "object"], "manifest"),
    ],
)  # fmt: skip
def test_the_field_is_named(manifest: Any, field: str) -> None:
    policy, errors = parse_policy(manifest, fine)
    assert policy is None
    assert field in {error.field for error in errors}
    assert all(error.message for error in errors)


def test_every_error_is_said_at_once() -> None:
    bad = cnp({"fromEntities": ["moon"], "toPorts": [{"ports": [{"port": 80}]}]}, nodeSelector={})
    assert len(parse_policy(bad, fine)[1]) == 3


def test_a_bad_expression_is_the_modules_to_find() -> None:
    _, errors = parse_policy(with_rules(http=[{"path": "("}]), lambda text: f"no {text}")
    assert [(e.field, "no (" in e.message) for e in errors] == [(f"{HTTP}.path", True)]


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2)
    ),
    max_leaves=5,
)
RICH = cnp(
    {
        "fromEndpoints": [{"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}],
        "fromEntities": ["world"],
        "fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}],
        "toPorts": [
            {"ports": PORTS, "rules": {"http": [{"path": "/", "headers": ["a: b"]}]}},
            {"ports": PORTS, "rules": {"kafka": [{"role": "produce", "topic": "t"}]}},
        ],
    },
    egress=[{"toCIDR": ["::/0"]}],
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = (
        list(value.items()) if isinstance(value, dict)
        else list(enumerate(value)) if isinstance(value, list) else []
    )  # fmt: skip
    return [path, *(p for key, item in items for p in places(item, (*path, key)))]


@given(st.sampled_from([p for p in places(RICH) if p]), ANY)
def test_nothing_that_is_written_raises(place: tuple[Any, ...], value: Any) -> None:
    manifest = copy.deepcopy(RICH)
    at: Any = manifest
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    policy, errors = parse_policy(manifest, fine)
    assert (policy is None) == bool(errors)
