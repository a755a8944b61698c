"""Routes of Services in a cluster: clients and backends on either node, Services translated."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from sandbox.cluster import kubectl, kubectl_command
from tests.system.cluster_rig import eventually
from tests.system.gateway_cluster.edge import (
    CLUSTER,
    GATEWAY_API,
    NODES,
    Manifest,
    apply,
    delete,
    manifest,
)
from tests.system.gateway_cluster.store import ASKED
from tests.system.sandbox_rig import policy

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600)]

CONSUMER = "consumer"
CLIENTS = ["client-0", "client-1"]
BOTH = {"store-0", "store-1"}
SERVICE = manifest(
    "v1", "Service", "shelf",
    spec={"selector": {"app": "store"}, "ports": [{"port": 80, "targetPort": 8080}]},
)  # fmt: skip


class Seen(NamedTuple):
    """Status, which route's, and who answered whom."""

    status: int
    route: str = ""
    pod: str = ""
    client: str = ""


def client(name: str, node: str, namespace: str = "default") -> Manifest:
    container = {"name": "main", "image": "sidegate.test/client"}
    spec = {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 1}
    metadata = {"namespace": namespace, "labels": {"app": name}}
    return manifest("v1", "Pod", name, metadata=metadata, spec=spec)


def route(namespace: str = "default") -> Manifest:
    said = {"type": "ResponseHeaderModifier",
            "responseHeaderModifier": {"set": [{"name": "Route", "value": namespace}]}}  # fmt: skip
    service = {"name": "shelf", "namespace": "default"}
    rule = {"filters": [said], "backendRefs": [{**service, "port": 80}]}
    spec = {"parentRefs": [{"group": "", "kind": "Service", **service}], "rules": [rule]}
    return manifest(GATEWAY_API, "HTTPRoute", "shelf", metadata={"namespace": namespace}, spec=spec)


@pytest.fixture(scope="module", autouse=True)
def clients() -> Iterator[None]:
    made = [
        manifest("v1", "Namespace", CONSUMER),
        SERVICE,
        *(client(name, node.name) for name, node in zip(CLIENTS, NODES, strict=True)),
        client("client", NODES[0].name, CONSUMER),
    ]
    apply(*made)
    # Not all that there are: those of other tests may be going.
    for namespace, names in (("default", CLIENTS), (CONSUMER, ["client"])):
        kubectl(CLUSTER, "wait", "-n", namespace, "--for=condition=Ready", "pod", *names,
                "--timeout=120s")  # fmt: skip
    yield
    delete(*made)


def field(kind: str, name: str, path: str) -> str:
    return kubectl(CLUSTER, "get", kind, name, "-o", f"jsonpath={{{path}}}")


def get(pod: str, path: str = "/", namespace: str = "default") -> Seen:
    url = f"http://{field('service', 'shelf', '.spec.clusterIP')}{path}"
    asked = ("exec", "-n", namespace, pod, "--", "http", "get", "-timeout", "3s", url)
    done = subprocess.run(
        kubectl_command(CLUSTER, *asked), check=True, capture_output=True, text=True
    )
    return read(json.loads(done.stdout))


def read(answer: dict[str, Any]) -> Seen:
    if answer["status"] != 200:
        return Seen(answer["status"])
    told = json.loads(answer["body"])
    (of,) = answer["headers"].get("Route", [""])
    return Seen(200, of, told["pod"], told["remote"].rpartition(":")[0])


def several(pod: str, path: str = "/", namespace: str = "default") -> set[Seen]:
    return {get(pod, path, namespace) for _ in range(ASKED // 2)}


def of_everybody() -> list[tuple[str, str, set[str]]]:
    """Each client's route, whether its address is what backends see, and who answers."""
    found = []
    for pod in CLIENTS:
        seen = several(pod)
        own = field("pod", pod, ".status.podIP")
        (of,) = {each.route for each in seen}
        assert {each.client for each in seen} == {own}
        found.append((pod, of, {each.pod for each in seen}))
    return found


@pytest.fixture
def produced() -> Iterator[None]:
    apply(route())
    for pod in CLIENTS:
        eventually("default", lambda pod=pod: get(pod).route, 60)
    yield
    delete(route())
    for pod in CLIENTS:
        eventually("", lambda pod=pod: get(pod).route, 60)


def test_routes_hold_for_clients_on_either_node_and_backends_see_them(produced: None) -> None:
    assert of_everybody() == [(pod, "default", BOTH) for pod in CLIENTS]


def test_a_backend_is_asked_by_the_client_itself_whichever_node_it_is_on(produced: None) -> None:
    ports = {"ports": [{"port": "8080", "protocol": "TCP"}]}
    rules = {"http": [{"path": "/things"}]}
    allowed = {"fromEndpoints": [{"matchLabels": {"app": CLIENTS[0]}}]}
    rule = {**allowed, "toPorts": [{**ports, "rules": rules}]}
    made = policy("store", "store", ingress=[rule])
    apply(made)
    try:
        eventually({403}, lambda: {each.status for each in several(CLIENTS[0], "/others")}, 60)
        assert {each.pod for each in several(CLIENTS[0], "/things")} == BOTH
        # The other node's kernel does not answer.
        assert {get(CLIENTS[1], "/things").status for _ in range(4)} <= {0, 403}
    finally:
        delete(made)


def test_who_has_no_routes_reaches_the_service_as_if_there_were_none() -> None:
    """By packet, as the socket leaves its address alone; the node's own processes by the socket."""
    apply(route(CONSUMER))
    try:
        eventually(CONSUMER, lambda: get("client", namespace=CONSUMER).route, 60)
        assert {each.pod for each in several("client", namespace=CONSUMER)} == BOTH
        assert of_everybody() == [(pod, "", BOTH) for pod in CLIENTS]
        url = f"http://{field('service', 'shelf', '.spec.clusterIP')}/"
        own = ["curl", "-s", "-m", "3", "-o", "/dev/null", "-w", "%{http_code}", url]
        done = subprocess.run(NODES[0].as_kubelet(own), check=False, capture_output=True, text=True)
        assert done.stdout == "200"
    finally:
        delete(route(CONSUMER))
