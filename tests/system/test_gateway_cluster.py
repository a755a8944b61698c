"""Gateways and Ingresses of a cluster: addresses, and who they are to policies, on either node."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
import yaml

from sandbox.cluster import kubectl, nodes_of
from sandbox.conformance import CLASS, set_up
from sandbox.control_plane import Cluster
from tests.system import cluster_rig
from tests.system.cluster_rig import eventually
from tests.system.sandbox_rig import policy
from tests.system.test_gateway_refusals import REFUSED

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600)]

CLUSTER = Cluster("gwc")
NODES = nodes_of(CLUSTER, 2)
POOL = ip_network("192.0.2.128/25")
GATEWAY_API = "gateway.networking.k8s.io/v1"
ASKED = 24
"""Times; that one of two pods is never chosen is then a defect."""

Manifest = dict[str, Any]


def manifest(version: str, kind: str, name: str, **fields: Any) -> Manifest:
    metadata = {"name": name, **fields.pop("metadata", {})}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def pod(name: str, node: str) -> Manifest:
    container = {"name": "main", "image": "sidegate.test/http"}
    spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 1}
    return manifest("v1", "Pod", name, metadata={"labels": {"app": "shop"}}, spec=spec)


def route(name: str, **match: Any) -> Manifest:
    rule = {"matches": [match], "backendRefs": [{"name": "shop", "port": 80}]}
    spec = {"parentRefs": [{"name": "shop"}], "rules": [rule]}
    return manifest(GATEWAY_API, "HTTPRoute", name, spec=spec)


OBJECTS = [
    *(pod(f"shop-{n}", node.name) for n, node in enumerate(NODES)),
    manifest(
        "v1", "Service", "shop",
        spec={"selector": {"app": "shop"}, "ports": [{"port": 80, "targetPort": 8080}]},
    ),
    manifest(
        GATEWAY_API, "Gateway", "shop",
        spec={
            "gatewayClassName": CLASS,
            "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}],
        },
    ),
    route("shop", path={"type": "PathPrefix", "value": "/"}),
    manifest(
        "networking.k8s.io/v1", "IngressClass", CLASS,
        spec={"controller": "sidegate.io/ingress-controller"},
    ),
    *(
        manifest(
            "networking.k8s.io/v1", "Ingress", name,
            metadata={"annotations": {"ingress.cilium.io/loadbalancer-mode": mode}},
            spec={
                "ingressClassName": CLASS,
                "defaultBackend": {"service": {"name": "shop", "port": {"number": 80}}},
            },
        )
        for name, mode in (("own", "dedicated"), ("one", "shared"), ("two", "shared"))
    ),
]  # fmt: skip


def apply(*objects: Manifest) -> None:
    kubectl(CLUSTER, "apply", "-f", "-", text=yaml.safe_dump_all(objects))


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with cluster_rig.running(CLUSTER, len(NODES)):
        set_up(CLUSTER, "experimental")
        apply(*OBJECTS)
        kubectl(CLUSTER, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s")
        yield


def status(kind: str, name: str) -> Any:
    return json.loads(kubectl(CLUSTER, "get", kind, name, "-o", "json")).get("status") or {}


def balanced(name: str) -> tuple[str, ...]:
    said = (status("ingress", name).get("loadBalancer") or {}).get("ingress") or ()
    return tuple(each["ip"] for each in said)


def gateway_address() -> str:
    found = status("gateway", "shop").get("addresses") or ()
    return str(found[0]["value"]) if found else ""


def asked(address: str, path: str) -> tuple[int, str]:
    """Status and body of what a client on the nodes' network gets."""
    command = ["nsenter", f"--net=/run/netns/{CLUSTER.netns}", "curl", "-s", "-m", "5", "-o", "-",
               "-w", "\n%{http_code}", f"http://{address}{path}"]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    body, _, code = done.stdout.rpartition("\n")
    return int(code or 0), body


def answers(address: str, path: str) -> set[tuple[int, str]]:
    """Statuses with the pods that answered, of many requests."""
    found = set()
    for _ in range(ASKED):
        code, body = asked(address, path)
        found.add((code, json.loads(body)["pod"] if code == 200 else ""))
    return found


BOTH = {(200, "shop-0"), (200, "shop-1")}


def test_ingresses_have_addresses_of_the_pool_and_are_served_there() -> None:
    eventually(True, lambda: all(balanced(name) for name in ("own", "one", "two")), 60)
    own, one, two = (balanced(name) for name in ("own", "one", "two"))
    assert one == two != own
    for (address,) in (own, one):
        assert ip_address(address) in POOL
        assert address != gateway_address()
        eventually(BOTH, lambda address=address: answers(address, "/"), 60)


def test_policies_of_backends_on_either_node_apply_to_what_enters() -> None:
    eventually(BOTH, lambda: answers(gateway_address(), "/things"), 60)
    ports = {"ports": [{"port": "8080", "protocol": "TCP"}]}
    rules = {"http": [{"method": "GET", "path": "/things"}]}
    rule = {"fromEntities": ["ingress"], "toPorts": [{**ports, "rules": rules}]}
    made = policy("shop", "shop", ingress=[rule])
    apply(made)
    try:
        eventually({(403, "")}, lambda: answers(gateway_address(), "/others"), 60)
        assert answers(gateway_address(), "/things") == BOTH
        _, body = asked(gateway_address(), "/things")
        assert ip_address(json.loads(body)["headers"]["X-Forwarded-For"][0]) in ip_network(
            "192.0.2.0/24"
        )
    finally:
        kubectl(CLUSTER, "delete", "ciliumnetworkpolicy", "shop")


def test_what_the_nodes_envoys_refuse_is_a_condition_of_the_route() -> None:
    eventually(200, lambda: asked(gateway_address(), "/")[0], 60)
    apply(route("bad", path={"type": "RegularExpression", "value": REFUSED}))

    def said() -> str:
        parents = status("httproute", "bad").get("parents") or [{"conditions": []}]
        found = {each["type"]: each["message"] for each in parents[0]["conditions"]}
        return "the proxy refuses it" if "the proxy refuses it" in str(found) else str(found)

    eventually("the proxy refuses it", said, 60)
    assert asked(gateway_address(), "/")[0] == 200
    kubectl(CLUSTER, "delete", "httproute", "bad")
