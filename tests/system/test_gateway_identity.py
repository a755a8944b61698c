"""What enters by a Gateway is `ingress` to the policies of the backends that it is balanced to."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.node import INGRESS_ADDRESSES, Node
from sandbox.segment import addresses
from tests.system.sandbox_rig import Sandbox, policy

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "gateway"
TCP_PORT = 9000
CLIENT = str(addresses(1)[0].ip)
"""The router of the node's segment, which dials the node from outside."""
PORT = {"port": "8080", "protocol": "TCP"}
BYTES = [
    {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "bytes", "namespace": "default"},
        "spec": {
            "gatewayClassName": "sidegate",
            "listeners": [{"name": "tcp", "port": TCP_PORT, "protocol": "TCP"}],
        },
    },
    {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "TCPRoute",
        "metadata": {"name": "bytes", "namespace": "default"},
        "spec": {
            "parentRefs": [{"name": "bytes"}],
            "rules": [{"backendRefs": [{"name": "shop-v1", "port": 80}]}],
        },
    },
]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    folder = tmp_path_factory.mktemp("resources")
    shutil.copytree(EXAMPLE, folder, dirs_exist_ok=True)
    (folder / "bytes.yaml").write_text(yaml.safe_dump_all(BYTES))
    made = Sandbox(folder, "gwid")
    yield made
    made.close()


@pytest.fixture
def judged(sandbox: Sandbox) -> Iterator[Sandbox]:
    """Without policies before and after."""
    yield sandbox
    sandbox.delete_policies()


def asked(
    node: Node, path: str, *options: str, port: int = 80, host: str = "www.shop.test"
) -> tuple[int, str]:
    """Status and body of what a client beyond the node gets; 0 where it gets no answer."""
    url = f"http://{node.addresses[0]}:{port}{path}"
    done = subprocess.run(
        ["ip", "netns", "exec", node.router_netns, "curl", "-s", "-m", "3", "-o", "-",
         "-w", "\n%{http_code}", "-H", f"Host: {host}", *options, url],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    body, _, status = done.stdout.rpartition("\n")
    return int(status), body


def eventually(node: Node, path: str, status: int, **where: Any) -> str:
    deadline = time.monotonic() + 15
    while (answer := asked(node, path, **where))[0] != status:
        assert time.monotonic() < deadline, answer
        time.sleep(0.05)
    return answer[1]


def from_entity(entity: str, *http: dict[str, str]) -> dict[str, Any]:
    ports: dict[str, Any] = {"ports": [PORT]}
    if http:
        ports["rules"] = {"http": list(http)}
    return policy("shop", "shop", ingress=[{"fromEntities": [entity], "toPorts": [ports]}])


def test_rules_of_the_backend_apply_to_the_request(judged: Sandbox) -> None:
    node = judged.node
    told = json.loads(eventually(node, "/things", 200))
    assert told["headers"]["X-Forwarded-For"] == [CLIENT]
    assert told["remote"].rpartition(":")[0].strip("[]") in INGRESS_ADDRESSES
    since = time.time_ns()
    judged.apply(from_entity("ingress", {"method": "GET", "path": "/things"}))
    assert asked(node, "/things")[0] == 200
    denied = (403, "Denied by Sidegate policy (ingress): no rule allows it.\n")
    assert asked(node, "/others") == denied
    assert asked(node, "/things", "-X", "POST") == denied
    # Judged after load balancing, so after the rewrite of the route.
    assert asked(node, "/v2/things")[0] == 200
    assert asked(node, "/v2/others") == denied
    flow = flow_of(judged, since, "/others")
    assert (flow["verdict"], flow["layer"]) == ("denied", "L7")
    assert flow["source"]["ip"] == CLIENT
    assert flow["source"]["labels"] == ["reserved:ingress"]
    assert flow["destination"]["pod"] == "default/shop-v1"
    allowed = flow_of(judged, since, "/things")
    assert allowed["verdict"] == "forwarded"
    assert "shop" in allowed["rule"]


def flow_of(sandbox: Sandbox, since: int, path: str) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while True:
        flows = sandbox.flows(since=since)
        found = [each for each in flows if (each["http"] or {}).get("path") == path]
        if found:
            return found[0]
        assert time.monotonic() < deadline, flows
        time.sleep(0.05)


@pytest.mark.parametrize("entity", ["host", "world", "remote-node"])
def test_a_gateway_is_nobody_else(judged: Sandbox, entity: str) -> None:
    eventually(judged.node, "/things", 200)
    judged.apply(from_entity(entity))
    assert asked(judged.node, "/things")[0] == 403


def test_a_backend_that_lets_nobody_in_answers_403_at_once(judged: Sandbox) -> None:
    eventually(judged.node, "/things", 200)
    judged.apply(policy("shop", "shop", ingress=[]))
    begin = time.monotonic()
    assert asked(judged.node, "/things")[0] == 403
    assert time.monotonic() - begin < 2


def test_a_mirrored_request_is_judged_like_any_other(judged: Sandbox) -> None:
    file = judged.resources / "mirrored.yaml"
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "mirrored", "namespace": "default"},
        "spec": {
            "parentRefs": [{"name": "shop"}],
            "hostnames": ["mirrored.shop.test"],
            "rules": [
                {
                    "filters": [
                        {
                            "type": "RequestMirror",
                            "requestMirror": {"backendRef": {"name": "shop-v2", "port": 80}},
                        }
                    ],
                    "backendRefs": [{"name": "shop-v1", "port": 80}],
                }
            ],
        },
    }
    only_v1 = from_entity("ingress", {"path": "/v1only"})
    only_v1["spec"]["endpointSelector"] = {"matchLabels": {"version": "v1"}}
    nobody = policy("nobody", "shop", ingress=[])
    nobody["spec"]["endpointSelector"] = {"matchLabels": {"version": "v2"}}
    judged.apply(only_v1, nobody)
    since = time.time_ns()
    file.write_text(yaml.safe_dump(route))
    eventually(judged.node, "/v1only", 200, host="mirrored.shop.test")
    deadline = time.monotonic() + 10
    while not any(
        flow["verdict"] == "denied" and flow["destination"]["pod"] == "default/shop-v2"
        for flow in judged.flows(since=since)
    ):
        assert time.monotonic() < deadline, judged.flows(since=since)
        time.sleep(0.05)
    file.unlink()


def test_bytes_are_judged_by_the_kernel(judged: Sandbox) -> None:
    """A TCPRoute that leads to HTTP: rules of L4 and of L7 hold for its connections."""
    node = judged.node
    eventually(node, "/things", 200, port=TCP_PORT)
    judged.apply(from_entity("ingress"))
    assert asked(node, "/things", port=TCP_PORT)[0] == 200
    judged.apply(from_entity("ingress", {"path": "/things"}))
    assert asked(node, "/things", port=TCP_PORT)[0] == 200
    assert asked(node, "/others", port=TCP_PORT)[0] == 403
    judged.apply(from_entity("host"))
    assert asked(node, "/things", port=TCP_PORT)[0] == 0


def test_the_node_itself_is_still_the_host(judged: Sandbox) -> None:
    """Whoever asks for no source address never gets one of the Gateways'."""
    for entity, patience, answer in (("ingress", "1", "000"), ("host", "3", "200")):
        judged.apply(from_entity(entity))
        for family in (4, 6):
            url = f"http://{judged.address('shop-v1', family)}:8080/"
            command = ["curl", "-s", "-m", patience, "-o", "/dev/null", "-w", "%{http_code}", url]
            done = subprocess.run(
                judged.node.inside(command), check=False, capture_output=True, text=True
            )
            assert done.stdout == answer
