"""Routes of Services: clients are redirected to them, and both ends' policies hold."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.system.netns import inside
from tests.system.sandbox_rig import Sandbox, http_rule, policy

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

RESOURCES = Path(__file__).parent / "resources_mesh"
ORDERS = {4: "http://10.96.7.1", 6: "http://[fd00:96:7::1]"}
BYTES, STOCK = "http://10.96.7.1:9000", "http://10.96.7.2"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    folder = tmp_path_factory.mktemp("resources")
    shutil.copytree(RESOURCES, folder, dirs_exist_ok=True)
    made = Sandbox(folder, "mesh")
    try:
        eventually(lambda: answer(made, "client", ORDERS[4] + "/v1")[0] == 200)
        yield made
    finally:
        made.close()


@pytest.fixture
def judged(sandbox: Sandbox) -> Iterator[Sandbox]:
    """Without policies before and after."""
    yield sandbox
    sandbox.delete_policies()


def answer(sandbox: Sandbox, pod: str, url: str, *options: str) -> tuple[int, Any]:
    """Status, and what the backend says of the request or else the body."""
    found = sandbox.get(pod, url, *options)
    body = found.get("body", "")
    return int(found["status"]), json.loads(body) if body.startswith("{") else body


def eventually(true: Any, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stock_route() -> str:
    """The first one of all clients for stock."""
    route = (RESOURCES / "routes.yaml").read_text().partition("---")[0]
    for there, here in (("name: orders,", "name: stock,"), ("orders-paths", "stock"), ("/v1", "/")):
        route = route.replace(there, here)
    return route


def dropped(sandbox: Sandbox, reason: str) -> int:
    found = sandbox.api.get("/v1/maps/counters").json()["rows"]
    return sum(each["packets"] for each in found if each["reason"] == reason)


@pytest.mark.parametrize("family", [4, 6])
def test_requests_go_by_route_and_backends_see_the_client(sandbox: Sandbox, family: int) -> None:
    for path, pod in (("/v1", "orders-v1"), ("/v2", "orders-v2")):
        status, said = answer(sandbox, "client", ORDERS[family] + path)
        assert (status, said["pod"]) == (200, pod)
        source = said["remote"].rpartition(":")[0]
        assert source == sandbox.address("client", family)
        assert "X-Forwarded-For" not in said["headers"]
    assert answer(sandbox, "client", ORDERS[family] + "/none")[0] == 404


def test_backends_have_their_weights(sandbox: Sandbox) -> None:
    pods = Counter(answer(sandbox, "client", ORDERS[4] + "/any")[1]["pod"] for _ in range(40))
    assert pods["orders-v1"] > pods["orders-v2"] > 0


def test_a_pod_may_be_its_own_backend(judged: Sandbox) -> None:
    """Whatever its policy: what it sends itself is nobody else's."""
    judged.apply(policy("closed", "orders", ingress=[], egress=[]))
    for family in (4, 6):
        status, said = answer(judged, "orders-v1", ORDERS[family] + "/v1")
        assert (status, said["pod"]) == (200, "orders-v1")
    assert answer(judged, "orders-v1", ORDERS[4] + "/v2")[0] == 403


def test_the_policy_of_the_client_is_that_for_the_chosen_backend(judged: Sandbox) -> None:
    to_v1 = {
        "toEndpoints": [{"matchLabels": {"app": "orders", "version": "v1"}}],
        "toPorts": [
            {
                "ports": [{"port": "8080", "protocol": "TCP"}],
                "rules": {"http": [{"path": "/v1.*"}]},
            }
        ],
    }
    judged.apply(policy("client", "client", egress=[to_v1]))
    denied = "Denied by Sidegate policy (egress): no rule allows it.\n"
    assert answer(judged, "client", ORDERS[4] + "/v1")[0] == 200
    assert answer(judged, "client", ORDERS[4] + "/v2") == (403, denied)
    assert answer(judged, "other", ORDERS[4] + "/v2")[0] == 200


def test_the_policy_of_the_backend_knows_the_client_itself(judged: Sandbox) -> None:
    judged.apply(policy("orders", "orders", ingress=[http_rule("from", "client", {"path": "/v1"})]))
    denied = "Denied by Sidegate policy (ingress): no rule allows it.\n"
    since = time.time_ns()
    assert answer(judged, "client", ORDERS[4] + "/v1")[0] == 200
    assert answer(judged, "client", ORDERS[4] + "/v2") == (403, denied)
    assert answer(judged, "other", ORDERS[4] + "/v1") == (403, denied)

    def known() -> bool:
        return any(
            flow["source"]["pod"] == "default/other"
            and flow["destination"]["pod"] == "default/orders-v1"
            and (flow["verdict"], flow["layer"]) == ("denied", "L7")
            for flow in judged.flows(since=since)
        )

    eventually(known)


def test_what_envoy_copies_is_judged_as_of_the_ingress(judged: Sandbox) -> None:
    """It has no client any more."""
    copied = policy("orders", "orders", ingress=[{"fromEntities": ["ingress"]}])
    copied["spec"]["endpointSelector"] = {"matchLabels": {"version": "v2"}}
    judged.apply(copied)
    since = time.time_ns()
    assert answer(judged, "client", ORDERS[4] + "/copied")[0] == 200

    def flows() -> list[tuple[str, Any, str]]:
        return [
            (flow["verdict"], flow["source"]["labels"], flow["destination"]["pod"])
            for flow in judged.flows(since=since)
            if (flow["http"] or {}).get("path") == "/copied"
        ]

    eventually(lambda: ("forwarded", ["reserved:ingress"], "default/orders-v2") in flows())


def test_consumers_see_their_own_routes_and_nobody_else_does(sandbox: Sandbox) -> None:
    """Stock has routes of the namespace `consumer` alone, orders of both."""
    status, said = answer(sandbox, "consumer/client", STOCK + "/")
    assert (status, said["pod"], said["headers"]["For"]) == (200, "orders-v2", ["consumer"])
    status, said = answer(sandbox, "consumer/client", ORDERS[4] + "/v1")
    assert (status, said["pod"]) == (200, "orders-v2")
    # Nobody translates Services on a node by itself.
    assert answer(sandbox, "client", STOCK + "/")[0] == 0


def test_bytes_go_by_route_and_both_policies_hold(judged: Sandbox) -> None:
    status, said = answer(judged, "client", BYTES + "/things")
    assert (status, said["pod"]) == (200, "orders-v2")
    assert said["remote"].rpartition(":")[0] == judged.address("client", 4)
    judged.apply(policy("orders", "orders", ingress=[http_rule("from", "client")]))
    assert answer(judged, "client", BYTES + "/things")[0] == 200
    assert answer(judged, "other", BYTES + "/things")[0] == 0
    judged.apply(policy("client", "client", egress=[http_rule("to", "other")]))
    assert answer(judged, "client", BYTES + "/things")[0] == 0


def test_what_is_no_http_is_closed(sandbox: Sandbox) -> None:
    dial = "exec 3<>/dev/tcp/10.96.7.1/80;"
    ask = f"{dial} printf '\\x16\\x03\\x01' >&3; timeout 5 cat <&3; [ $? = 124 ] || echo closed"
    assert sandbox.run("client", "bash", "-c", ask).stdout == "closed\n"


def test_without_a_proxy_nothing_passes(sandbox: Sandbox) -> None:
    before = dropped(sandbox, "proxy down")
    os.kill(sandbox.envoy_pid(), signal.SIGKILL)
    seen = [answer(sandbox, "client", ORDERS[4] + "/v1")[0]]
    deadline = time.monotonic() + 20
    while seen[-1] != 200 and time.monotonic() < deadline:
        seen.append(answer(sandbox, "client", ORDERS[4] + "/v1")[0])
    assert set(seen) <= {0, 200}
    assert seen[-1] == 200
    assert dropped(sandbox, "proxy down") > before


def test_routes_change_without_a_listener_that_does(sandbox: Sandbox) -> None:
    def listeners() -> dict[str, str]:
        found = sandbox.api.get("/v1/status").json()["xds"]["resources"]
        return {each["name"]: each["version"] for each in found if each["type"] == "Listener"}

    before = listeners()
    assert any(name.startswith("gateway/mesh/") for name in before)
    file = sandbox.resources / "added.yaml"
    file.write_text(
        (RESOURCES / "routes.yaml")
        .read_text()
        .split("---")[0]
        .replace("orders-paths", "added")
        .replace("/v1", "/added")
    )
    eventually(lambda: answer(sandbox, "client", ORDERS[4] + "/added")[0] == 200)
    assert listeners() == before
    file.unlink()
    eventually(lambda: answer(sandbox, "client", ORDERS[4] + "/added")[0] == 404)


def test_a_port_that_somebody_else_of_the_node_has_is_left_to_them(sandbox: Sandbox) -> None:
    def refused() -> int:
        return int(sandbox.api.get("/v1/status").json()["xds"]["counters"].get("xds_nacks", 0))

    before = refused()
    ports = json.loads((sandbox.node.run_dir / "state" / "mesh.json").read_text())["ports"]
    file = sandbox.resources / "more.yaml"
    with inside(sandbox.node.netns):
        other = socket.create_server(("127.0.0.1", max(ports.values()) + 1))
    with other:
        file.write_text(stock_route())
        eventually(lambda: answer(sandbox, "client", STOCK + "/v1")[0] == 200)
        assert refused() > before
    file.unlink()
    eventually(lambda: answer(sandbox, "client", STOCK + "/v1")[0] == 0)


@pytest.mark.parametrize("enforced", [False, True])
def test_connections_of_before_are_reset_when_the_last_route_has_gone(
    judged: Sandbox, enforced: bool
) -> None:
    """What they have asked is answered; who asks more on them dials anew."""
    file = judged.resources / "more.yaml"
    file.write_text(stock_route())
    eventually(lambda: answer(judged, "client", STOCK + "/v1")[0] == 200)
    with inside(judged.node.pod_netns("default", "client")):
        idle, busy = (http.client.HTTPConnection("10.96.7.2", timeout=5) for _ in range(2))
        for each in (idle, busy):
            each.request("GET", "/v1")
            assert each.getresponse().read()
        busy.request("GET", "/stream?seconds=2")
    streamed = busy.getresponse()
    file.unlink()
    eventually(lambda: answer(judged, "client", STOCK + "/v1")[0] == 0)
    if enforced:
        judged.apply(policy("client", "client", egress=[http_rule("to", "orders")]))
    with pytest.raises(ConnectionResetError):
        ask_again(idle)
    assert len(streamed.read().splitlines()) > 10
    busy.close()


def ask_again(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/v1")
    connection.getresponse()
