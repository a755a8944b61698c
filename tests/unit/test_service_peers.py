"""``toServices`` and entities: whom they mean, and that they follow what changes."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
import yaml

from kube_store.resource import Resource, ResourceKey
from kube_store.store import Change, ChangeType
from node_agent.service_peers import ServicePeers
from policy_engine.identity import Reserved
from policy_engine.labels import pod_labels
from policy_engine.model import Action, Direction, Protocol
from policy_engine.parse import parse_policy
from policy_engine.repository import PolicyRepository, Subject
from policy_engine.trace import decide

CLIENT, WEB, FAR_WEB = 256, 257, 258
BY_NAME = "{k8sService: {serviceName: web, namespace: default}}"
ANYWHERE = "{k8sService: {serviceName: web}}"
BY_LABEL = "{k8sServiceSelector: {selector: {matchLabels: {tier: front}}, namespace: default}}"


def repository() -> PolicyRepository:
    """Endpoint 1 is the client of namespace default; a web pod is there, another is far."""
    made = PolicyRepository()
    pods = {CLIENT: ("default", "client"), WEB: ("default", "web"), FAR_WEB: ("far", "web")}
    for number, (namespace, app) in pods.items():
        labels = pod_labels(namespace, {"app": app}, {})
        made.upsert_identity(number, labels)
        if number == CLIENT:
            made.upsert_endpoint(1, Subject(CLIENT, labels))
    return made


def policy(made: PolicyRepository, egress: str, section: str = "egress") -> set[int]:
    text = (
        "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p},"
        f" spec: {{endpointSelector: {{}}, {section}: {egress}}}}}"
    )
    parsed, errors = parse_policy(yaml.safe_load(text), lambda _: None)
    assert parsed, errors
    return made.upsert_policy(parsed)


def to(*services: str) -> str:
    return f"[{{toServices: [{', '.join(services)}]}}]"


def reached(made: PolicyRepository, port: int = 80) -> set[int | str]:
    """Identities, and CIDRs by their prefix, that the client may talk to."""
    found = made.policy_for(1)
    assert found
    assert found.egress.enforced
    prefixes = {number: str(prefix) for prefix, number in made.cidr_identities().items()}
    return {
        prefixes.get(number, number)
        for number in made.identities()
        if decide(found, Direction.EGRESS, number, Protocol.TCP, port).action is Action.ALLOW
    }


@pytest.mark.parametrize(
    ("services", "expected"),
    [
        (BY_NAME, {WEB}),
        (ANYWHERE, {WEB, FAR_WEB}),
        (BY_LABEL, {WEB}),
        ("{k8sServiceSelector: {selector: {matchLabels: {tier: front}}}}", {WEB, FAR_WEB}),
        ("{k8sServiceSelector: {selector: {matchExpressions:"
         " [{key: tier, operator: Exists}]}, namespace: far}}", {FAR_WEB}),
        ("{k8sService: {serviceName: web, namespace: nowhere}}", set()),
        ("{k8sService: {serviceName: outside, namespace: default}}",
         {"192.0.2.7/32", "2001:db8::7/128"}),
        ("{k8sService: {serviceName: empty, namespace: default}}", set()),
        ("{k8sService: {serviceName: kubernetes, namespace: default}}", {Reserved.KUBE_APISERVER}),
    ],
)  # fmt: skip
def test_whom_a_service_means(services: str, expected: set[int | str]) -> None:
    made = repository()
    outside = frozenset({ip_network("192.0.2.7"), ip_network("2001:db8::7")})
    made.upsert_service("default", "web", {"tier": "front"}, {"app": "web"})
    made.upsert_service("far", "web", {"tier": "front"}, {"app": "web"})
    made.upsert_service("default", "outside", {}, {}, outside)
    made.upsert_service("default", "empty", {}, {})
    made.upsert_service("default", "kubernetes", {}, {}, frozenset({ip_network("10.0.0.1")}))
    policy(made, to(services))
    assert reached(made) == expected


def test_what_a_service_is_may_change() -> None:
    made = repository()
    assert policy(made, to(BY_NAME, "{k8sService: {serviceName: other}}")) == {1}
    assert reached(made) == set(), "nobody knows the Service yet"
    assert made.upsert_service("default", "web", {}, {"app": "web"}) == {1}
    assert reached(made) == {WEB}
    assert made.upsert_service("default", "web", {}, {"app": "web"}) == set()
    assert made.upsert_service("far", "web", {}, {"app": "client"}) == set(), "not meant"
    assert made.upsert_identity(300, pod_labels("default", {"app": "web", "v": "2"}, {})) == {1}
    assert reached(made) == {WEB, 300}
    assert made.upsert_service("default", "web", {}, {}, frozenset({ip_network("192.0.2.1")}))
    assert reached(made) == {"192.0.2.1/32"}
    assert made.delete_service("default", "web") == {1}
    assert reached(made) == set()
    assert not made.cidr_identities(), "what no policy means is not told apart"


def test_a_policy_that_is_gone_follows_no_service() -> None:
    made = repository()
    policy(made, to(BY_NAME))
    made.delete_policy(next(iter(made.policies())))
    assert made.upsert_service("default", "web", {}, {"app": "web"}) == set()
    assert not made.policies()


def test_services_narrowed_and_denied() -> None:
    made = repository()
    made.upsert_service("default", "web", {}, {"app": "web"})
    ports = "toPorts: [{ports: [{port: '8080', protocol: TCP}]}]"
    policy(made, f"[{{toServices: [{BY_NAME}], {ports}}}]")
    assert (reached(made, 8080), reached(made, 80)) == ({WEB}, set())
    policy(made, f"[{{toEntities: [cluster]}}], egressDeny: {to(BY_NAME)}")
    assert {CLIENT, FAR_WEB} <= reached(made)
    assert WEB not in reached(made)


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ("{}", ""),
        (f"{{k8sService: {{serviceName: a}}, {BY_LABEL[1:]}", ""),
        ("{k8sService: {}}", ".k8sService.serviceName"),
        ("{k8sService: {serviceName: 1}}", ".k8sService.serviceName"),
        ("{k8sService: {serviceName: ''}}", ".k8sService.serviceName"),
        ("{k8sService: {serviceName: a, name: b}}", ".k8sService.name"),
        ("{k8sServiceSelector: {namespace: a}}", ".k8sServiceSelector.selector"),
        ("{k8sServiceSelector: {selector: {}, namespace: 1}}", ".k8sServiceSelector.namespace"),
    ],
)
def test_the_field_is_named(item: str, field: str) -> None:
    manifest: dict[str, Any] = {
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "p"},
        "spec": {"endpointSelector": {}, "egress": yaml.safe_load(to(item))},
    }  # fmt: skip
    parsed, errors = parse_policy(manifest, lambda _: None)
    assert parsed is None
    assert f"spec.egress[0].toServices[0]{field}" in [error.field for error in errors]


def test_ingress_knows_no_services() -> None:
    manifest = {
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "p"},
        "spec": {"endpointSelector": {}, "ingress": [{"toServices": []}]},
    }  # fmt: skip
    assert parse_policy(manifest, lambda _: None)[0] is None


CLUSTER = set(Reserved) - {Reserved.WORLD}


@pytest.mark.parametrize(
    ("entity", "expected"),
    [
        ("host", {Reserved.HOST}),
        ("remote-node", {Reserved.REMOTE_NODE}),
        ("kube-apiserver", {Reserved.KUBE_APISERVER}),
        ("ingress", {Reserved.INGRESS}),
        ("health", {Reserved.HEALTH}),
        ("init", {Reserved.INIT}),
        ("unmanaged", {Reserved.UNMANAGED}),
        ("none", set()),
        ("world", {Reserved.WORLD, "192.0.2.0/24", "2001:db8::/32"}),
        ("world-ipv4", {"0.0.0.0/0", "192.0.2.0/24"}),
        ("world-ipv6", {"::/0", "2001:db8::/32"}),
        ("cluster", {*CLUSTER, CLIENT, WEB, FAR_WEB}),
        ("all", {*Reserved, CLIENT, WEB, FAR_WEB, "192.0.2.0/24", "2001:db8::/32"}),
    ],
)
def test_whom_an_entity_means(entity: str, expected: set[int | str]) -> None:
    """CIDRs are known because another pod's policy names them."""
    made = repository()
    other, errors = parse_policy(
        yaml.safe_load(
            "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: other},"
            " spec: {endpointSelector: {matchLabels: {app: other}},"
            " egress: [{toCIDR: [192.0.2.0/24, '2001:db8::/32']}]}}"
        ),
        lambda _: None,
    )
    assert other, errors
    made.upsert_policy(other)
    policy(made, f"[{{toEntities: [{entity}]}}]")
    assert reached(made) == expected


def change(manifest: dict[str, Any], type_: ChangeType = ChangeType.MODIFIED) -> Change:
    metadata = manifest["metadata"]
    key = ResourceKey(manifest["kind"], "default", metadata["name"])
    return Change(type_, Resource(key, manifest))


def service(name: str, **selector: str) -> dict[str, Any]:
    return {"kind": "Service", "metadata": {"name": name}, "spec": {"selector": selector}}


def endpoint_slice(name: str, of: str, *addresses: str, kind: str = "IPv4") -> dict[str, Any]:
    return {
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": of}},
        "addressType": kind,
        "endpoints": [{"addresses": [address]} for address in addresses],
    }


def test_services_and_slices_of_the_store() -> None:
    made = repository()
    peers = ServicePeers(made)
    policy(made, to(BY_NAME))
    assert peers.take(change(endpoint_slice("web-1", "web", "192.0.2.1", "nonsense"))) == set()
    assert peers.take(change(service("web"))) == {1}, "the slice was there first"
    assert reached(made) == {"192.0.2.1/32"}
    assert peers.take(change(endpoint_slice("web-2", "web", "192.0.2.2"))) == {1}
    assert peers.take(change(endpoint_slice("web-3", "web", "a.example", kind="FQDN"))) == set()
    assert reached(made) == {"192.0.2.1/32", "192.0.2.2/32"}
    assert peers.take(change(endpoint_slice("web-2", "another", "192.0.2.2"))) == {1}
    assert reached(made) == {"192.0.2.1/32"}, "a slice may go to another Service"
    assert peers.take(change(service("web", app="web"))) == {1}
    assert reached(made) == {WEB}, "with a selector its pods are meant, not its slices"
    named = service("web", app="web")
    named["spec"]["type"] = "ExternalName"
    assert peers.take(change(named)) == {1}
    assert reached(made) == {"192.0.2.1/32"}, "the API ignores its selector"
    assert peers.take(change(service("web", app="web"))) == {1}
    assert peers.take(change(endpoint_slice("web-1", "web", "192.0.2.9"))) == set()
    assert peers.take(change(service("web"))) == {1}
    assert reached(made) == {"192.0.2.9/32"}
    gone = endpoint_slice("web-1", "web", "192.0.2.9")
    assert peers.take(change(gone, ChangeType.DELETED)) == {1}
    assert reached(made) == set()
    assert peers.take(change(service("web"), ChangeType.DELETED)) == {1}
