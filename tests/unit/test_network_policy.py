"""NetworkPolicy, deny rules, ranges, named ports and default allow: what the kernel is told."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from policy_engine.compile import PORT_BITS, port_blocks
from policy_engine.labels import pod_labels
from policy_engine.model import Action, Direction, Protocol
from policy_engine.parse import parse_policy
from policy_engine.repository import PolicyRepository, Subject
from policy_engine.trace import decide

SERVER, CLIENT, FAR, OTHER, HOST, WORLD, REMOTE = 256, 257, 258, 259, 1, 2, 6
TCP, UDP, SCTP = Protocol.TCP, Protocol.UDP, Protocol.SCTP
IN, OUT = Direction.INGRESS, Direction.EGRESS
ALLOW, DENY, REDIRECT = Action.ALLOW, Action.DENY, Action.REDIRECT
WEB = {"web": frozenset({(8080, TCP), (9090, UDP)})}


def repository(*texts: str) -> PolicyRepository:
    """Endpoint 1 is the server of namespace default; the client has a port ``web`` as well."""
    made = PolicyRepository()
    pods = {
        SERVER: ("default", "server", {"team": "a"}),
        CLIENT: ("default", "client", {"team": "a"}),
        FAR: ("far", "client", {"team": "b"}),
        OTHER: ("default", "other", {"team": "a"}),
    }
    for number, (namespace, app, of_namespace) in pods.items():
        labels = pod_labels(namespace, {"app": app}, of_namespace)
        made.upsert_identity(number, labels)
        if number == SERVER:
            made.upsert_endpoint(1, Subject(SERVER, labels, False, WEB))
    made.set_named_ports(CLIENT, {"web": frozenset({(7070, TCP)})})
    for number, text in enumerate(texts):
        manifest = yaml.safe_load(text)
        manifest.setdefault("metadata", {})["name"] = f"p{number}"
        policy, errors = parse_policy(manifest, lambda _: None)
        assert policy, errors
        made.upsert_policy(policy)
    return made


def verdicts(
    made: PolicyRepository, probes: list[tuple[Direction, int, Protocol, int]]
) -> list[Action]:
    policy = made.policy_for(1)
    assert policy
    return [
        decide(policy, *probe).action if policy.direction(probe[0]).enforced else ALLOW
        for probe in probes
    ]


def np(spec: str) -> str:
    return f"{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, spec: {spec}}}"


def cnp(spec: str) -> str:
    return (
        "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, spec: "
        f"{{endpointSelector: {{}}, {spec}}}}}"
    )


CLIENT_80, FAR_80 = (IN, CLIENT, TCP, 80), (IN, FAR, TCP, 80)
WORLD_80, HOST_80 = (IN, WORLD, TCP, 80), (IN, HOST, TCP, 80)


@pytest.mark.parametrize(
    ("policies", "expected"),
    [
        pytest.param(
            [np("{podSelector: {}}")],
            {CLIENT_80: DENY, WORLD_80: DENY, HOST_80: DENY},
            id="default deny of ingress",
        ),
        pytest.param(
            [np("{podSelector: {}, ingress: [{}]}")],
            {CLIENT_80: ALLOW, WORLD_80: ALLOW, (IN, FAR, SCTP, 1): ALLOW},
            id="an empty rule allows everybody",
        ),
        pytest.param(
            [np("{podSelector: {}, policyTypes: [Egress]}")],
            {(OUT, CLIENT, TCP, 80): DENY, (OUT, WORLD, UDP, 53): DENY},
            id="default deny of egress",
        ),
        pytest.param(
            [np("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}")],
            {CLIENT_80: ALLOW, FAR_80: DENY, HOST_80: DENY, WORLD_80: DENY},
            id="pods of its own namespace",
        ),
        pytest.param(
            [np("{podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}")],
            {CLIENT_80: ALLOW, FAR_80: ALLOW, HOST_80: DENY, (IN, REMOTE, TCP, 1): DENY},
            id="pods of every namespace, no hosts",
        ),
        pytest.param(
            [np("{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}},"
                " podSelector: {matchLabels: {app: client}}}]}]}")],
            {CLIENT_80: DENY, FAR_80: ALLOW},
            id="both selectors of one peer must hold",
        ),
        pytest.param(
            [np("{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: b}}},"
                " {podSelector: {matchLabels: {app: other}}}]}]}")],
            {CLIENT_80: DENY, FAR_80: ALLOW, (IN, OTHER, TCP, 80): ALLOW},
            id="one of two peers must hold",
        ),
        pytest.param(
            [np("{podSelector: {}, ingress: [{from: [{podSelector: {matchExpressions:"
                " [{key: app, operator: NotIn, values: [other]}]}}]}]}")],
            {CLIENT_80: ALLOW, (IN, OTHER, TCP, 80): DENY, WORLD_80: DENY},
            id="matchExpressions",
        ),
        pytest.param(
            [np("{podSelector: {}, ingress: [{ports: [{port: 80}, {protocol: UDP, port: 53}]}]}")],
            {CLIENT_80: ALLOW, (IN, CLIENT, UDP, 80): DENY, (IN, CLIENT, UDP, 53): ALLOW},
            id="protocol is TCP unless said",
        ),
        pytest.param(
            [np("{podSelector: {}, ingress: [{ports: [{protocol: SCTP}]}]}")],
            {CLIENT_80: DENY, (IN, CLIENT, SCTP, 7): ALLOW},
            id="a protocol without port",
        ),
        pytest.param(
            [np("{podSelector: {}, ingress: [{ports: [{port: 8000, endPort: 8999}]}]}")],
            {(IN, CLIENT, TCP, 7999): DENY, (IN, CLIENT, TCP, 8000): ALLOW,
             (IN, CLIENT, TCP, 8999): ALLOW, (IN, CLIENT, TCP, 9000): DENY},
            id="endPort",
        ),
        pytest.param(
            [np("{podSelector: {}, ingress: [{ports: [{port: web}]}]}")],
            {(IN, CLIENT, TCP, 8080): ALLOW, (IN, CLIENT, UDP, 9090): DENY, CLIENT_80: DENY},
            id="a named port is the subject's",
        ),
        pytest.param(
            [np("{podSelector: {}, ingress: [{ports: [{port: nope}]}]}")],
            {CLIENT_80: DENY, (IN, CLIENT, TCP, 8080): DENY},
            id="a name that no port has allows nothing",
        ),
        pytest.param(
            [np("{podSelector: {}, egress: [{ports: [{port: web}]}], policyTypes: [Egress]}")],
            {(OUT, CLIENT, TCP, 7070): ALLOW, (OUT, CLIENT, TCP, 8080): DENY,
             (OUT, OTHER, TCP, 7070): DENY},
            id="a named port of egress is each peer's",
        ),
        pytest.param(
            [np("{podSelector: {matchLabels: {app: client}}}")],
            {CLIENT_80: ALLOW, WORLD_80: ALLOW},
            id="other pods are not concerned",
        ),
        pytest.param(
            [np("{podSelector: {}}"),
             np("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}")],
            {CLIENT_80: ALLOW, FAR_80: DENY},
            id="policies add up",
        ),
        pytest.param(
            [cnp("ingress: [{fromEntities: [all]}],"
                 " ingressDeny: [{fromEndpoints: [{matchLabels: {app: client}}]}]")],
            {CLIENT_80: DENY, (IN, OTHER, TCP, 80): ALLOW, WORLD_80: ALLOW},
            id="deny wins",
        ),
        pytest.param(
            [np("{podSelector: {}, ingress: [{}]}"),
             cnp("ingressDeny: [{toPorts: [{ports: [{port: '80', endPort: 89}]}]}]")],
            {CLIENT_80: DENY, (IN, CLIENT, UDP, 85): DENY, (IN, CLIENT, TCP, 90): ALLOW},
            id="deny of another policy wins, on a range",
        ),
        pytest.param(
            [cnp("ingressDeny: [{fromEndpoints: [{matchLabels: {app: client}}]}]")],
            {CLIENT_80: DENY, (IN, OTHER, TCP, 80): DENY},
            id="deny alone puts into default deny",
        ),
        pytest.param(
            [cnp("ingressDeny: [{fromEndpoints: [{matchLabels: {app: client}}]}],"
                 " enableDefaultDeny: {ingress: false}")],
            {CLIENT_80: DENY, (IN, OTHER, TCP, 80): ALLOW, WORLD_80: ALLOW},
            id="unless told not to",
        ),
        pytest.param(
            [cnp("ingress: [{fromEndpoints: [{matchLabels: {app: client}}], toPorts: [{ports:"
                 " [{port: '80', protocol: TCP}], rules: {http: [{path: /a}]}}]}],"
                 " enableDefaultDeny: {ingress: false}")],
            {CLIENT_80: REDIRECT, (IN, CLIENT, TCP, 81): ALLOW, WORLD_80: ALLOW},
            id="L7 rules narrow under default allow",
        ),
        pytest.param(
            [cnp("ingress: [{fromEndpoints: [{matchLabels: {app: client}}]}],"
                 " enableDefaultDeny: {ingress: false}"), np("{podSelector: {}}")],
            {CLIENT_80: ALLOW, (IN, OTHER, TCP, 80): DENY},
            id="one policy with default deny is enough",
        ),
        pytest.param(
            [cnp("ingress: [{toPorts: [{ports: [{port: web}], rules: {http: [{path: /a}]}}]}]")],
            {(IN, CLIENT, TCP, 8080): REDIRECT, (IN, CLIENT, UDP, 9090): DENY},
            id="a named port with L7 rules",
        ),
    ],
)  # fmt: skip
def test_what_the_kernel_decides(policies: list[str], expected: dict[Any, Action]) -> None:
    probes = list(expected)
    assert dict(zip(probes, verdicts(repository(*policies), probes), strict=True)) == expected


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ("{podSelector: {}, policyTypes: [In]}", "spec.policyTypes[0]"),
        ("{podSelector: {}, ingress: [{from: [{}]}]}", "spec.ingress[0].from[0]"),
        ("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: x}}]}]}",
         "spec.ingress[0].from[0].ipBlock.cidr"),
        ("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}, podSelector: {}}]}]}",
         "spec.ingress[0].from[0]"),
        ("{podSelector: {}, ingress: [{ports: [{port: 0}]}]}", "spec.ingress[0].ports[0].port"),
        ("{podSelector: {}, ingress: [{ports: [{port: 9, endPort: 8}]}]}",
         "spec.ingress[0].ports[0].endPort"),
        ("{podSelector: {}, ingress: [{ports: [{port: web, endPort: 8}]}]}",
         "spec.ingress[0].ports[0].endPort"),
        ("{podSelector: {}, ingress: [{ports: [{protocol: ICMP}]}]}",
         "spec.ingress[0].ports[0].protocol"),
        ("{podselector: {}}", "spec.podselector"),
    ],
)  # fmt: skip
def test_the_field_is_named(spec: str, field: str) -> None:
    manifest = yaml.safe_load(np(spec))
    manifest["metadata"] = {"name": "p"}
    policy, errors = parse_policy(manifest, lambda _: None)
    assert policy is None
    assert field in [error.field for error in errors]


def test_an_ip_block_with_excepts_selects_addresses_outside_the_cluster() -> None:
    made = repository(
        np("{podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8,"
           " except: [10.1.0.0/16]}}]}]}")
    )  # fmt: skip
    numbers = {str(prefix): number for prefix, number in made.cidr_identities().items()}
    probes = [(IN, numbers["10.0.0.0/8"], TCP, 80), (IN, numbers["10.1.0.0/16"], TCP, 80)]
    assert verdicts(made, [*probes, WORLD_80]) == [ALLOW, DENY, DENY]


def test_a_named_port_that_changes_concerns_those_who_name_it() -> None:
    made = repository(np("{podSelector: {}, egress: [{ports: [{port: web}]}]}"))
    assert made.set_named_ports(OTHER, {"web": frozenset({(1, TCP)})}) == {1}
    assert verdicts(made, [(OUT, OTHER, TCP, 1)]) == [ALLOW]
    assert made.set_named_ports(OTHER, {"web": frozenset({(1, TCP)})}) == set()
    assert made.set_named_ports(OTHER, {}) == {1}
    assert verdicts(made, [(OUT, OTHER, TCP, 1)]) == [DENY]


@given(st.integers(1, 65535), st.integers(1, 65535), st.integers(0, 65535))
def test_blocks_cover_a_range_and_nothing_else(one: int, two: int, port: int) -> None:
    first, last = sorted((one, two))
    blocks = list(port_blocks(first, last))
    assert len(blocks) <= 30
    holding = [b for b in blocks if port >> (PORT_BITS - b[1]) == b[0] >> (PORT_BITS - b[1])]
    assert len(holding) == (first <= port <= last)
