"""The whole house on one machine: pods, policy, kernel, Envoy, module, flows, faults."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.images import http_peer
from tests.system.sandbox_rig import CLI, Sandbox, http_rule, policy

pytestmark = [pytest.mark.system]

RESOURCES = Path(__file__).parent / "resources"
GET_OPEN = {"method": "GET", "path": "/open.*"}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(RESOURCES, f"t{os.getpid()}")
    try:
        yield made
    finally:
        made.close()
        assert not made.node.exists()
        assert not made.node.run_dir.exists()


@pytest.fixture
def clean(sandbox: Sandbox) -> Iterator[Sandbox]:
    """A node without policies before and after."""
    yield sandbox
    kinds = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")
    for kind in kinds:
        items = sandbox.api.get("/v1/resources", params={"kind": kind}).json()["items"]
        sandbox.delete(*(item["manifest"] for item in items))


# -- pods -----------------------------------------------------------------------------------------


def test_pods_have_what_their_manifests_say(sandbox: Sandbox) -> None:
    files = "/etc/sidegate-test/app.conf /run/sidegate-test-keys/token"
    shell = f"hostname; echo $PLAIN $GREETING $TOKEN; cat {files}"
    said = sandbox.run("server", "sh", "-c", shell).stdout.split()
    assert said == ["server-host", "1", "hello", "s3cret", "level=1", "s3cret"]
    ip = sandbox.run("server", "sh", "-c", "echo $POD_IP").stdout.strip()
    assert ip == sandbox.address("server", 4)
    outside = Path("/run/sidegate-test-keys/token")
    assert not outside.exists() or not outside.read_bytes()


def test_a_pod_applied_later_starts_and_a_deleted_one_goes(clean: Sandbox) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "late", "labels": {"app": "client"}},
        "spec": {"containers": [{"name": "main", "image": "sidegate.test/client"}]},
    }
    clean.apply(pod)
    end = time.monotonic() + 5
    while clean.api.get("/v1/endpoints/late").status_code != 200 and time.monotonic() < end:
        time.sleep(0.02)
    time.sleep(0.2)
    assert clean.status("late", "http://server:8080/") == 200
    clean.delete(pod)
    while clean.api.get("/v1/endpoints/late").status_code == 200 and time.monotonic() < end + 5:
        time.sleep(0.02)
    assert clean.api.get("/v1/endpoints/late").status_code == 404


def test_the_agents_sockets_are_not_everybodys(sandbox: Sandbox) -> None:
    for name in ("agent.sock", "xds.sock"):
        assert (sandbox.node.run_dir / name).stat().st_mode & 0o007 == 0, name


# -- verdicts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("http2", [False, True])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_http_policy(clean: Sandbox, direction: str, http2: bool, family: int) -> None:
    options = ["-http2"] if http2 else []
    url = f"http://{clean.address('server', family)}:8080"
    assert clean.status("client", url + "/open/1", *options) == 200
    if direction == "ingress":
        clean.apply(policy("p", "server", ingress=[http_rule("from", "client", GET_OPEN)]))
    else:
        clean.apply(policy("p", "client", egress=[http_rule("to", "server", GET_OPEN)]))
    since = time.time_ns()
    answer = clean.get("client", url + "/open/1", *options)
    assert answer["status"] == 200
    said = json.loads(answer["body"])
    address = clean.address("client", family)
    assert said["remote"].startswith(f"{address}:"), "the client's address is kept"
    denied = clean.get("client", url + "/closed", *options)
    assert denied["status"] == 403
    assert "Sidegate" in denied["body"]
    time.sleep(0.3)
    seen = {
        (f["verdict"], f["http"]["path"], f["direction"], f["rule"])
        for f in clean.flows(since, layer="L7")
    }
    rule = f"cnp/default/p#{direction}[0].toPorts[0]"
    assert seen == {("forwarded", "/open/1", direction, rule), ("denied", "/closed", direction, "")}
    other = clean.status("other", url + "/open/1", *options)
    assert other == (0 if direction == "ingress" else 200)


def test_grpc_is_denied_in_its_own_way(clean: Sandbox) -> None:
    clean.apply(policy("p", "server", ingress=[http_rule("from", "client", GET_OPEN)]))
    answer = clean.get(
        "client",
        "http://server:8080/grpc.health.v1.Health/Check",
        "-http2",
        *("-method", "POST", "-header", "content-type: application/grpc"),
    )
    assert answer["status"] == 200
    assert answer["headers"].get("Grpc-Status") == ["7"] or answer["trailers"].get(
        "Grpc-Status"
    ) == ["7"]


@pytest.mark.parametrize(
    ("peer", "entity", "status"),
    [("client", "cluster", 200), ("client", "world", 0), ("client", "all", 200)],
)
def test_entities(clean: Sandbox, peer: str, entity: str, status: int) -> None:
    clean.apply(policy("p", "server", ingress=[{"fromEntities": [entity]}]))
    assert clean.status(peer, "http://server:8080/") == status


def test_the_host_and_the_world_are_judged(clean: Sandbox) -> None:
    url = f"http://{clean.address('server', 4)}:8080/open"
    peer = [str(http_peer()), "get", "-timeout", "1s", url]
    host = clean.node.inside(peer)
    remote = ["nsenter", f"--net=/run/netns/{clean.node.router_netns}", *peer]

    def seen(command: list[str]) -> Any:
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return json.loads(done.stdout)["status"]

    l7 = {"ports": [{"port": "8080", "protocol": "TCP"}], "rules": {"http": [GET_OPEN]}}
    table = [
        ({"fromEntities": ["host"], "toPorts": [l7]}, 200, 0),
        ({"fromCIDR": ["192.0.2.0/24"], "toPorts": [l7]}, 0, 200),
        ({"fromCIDRSet": [{"cidr": "192.0.2.0/24", "except": ["192.0.2.1/32"]}]}, 0, 0),
        ({"fromEntities": ["world"]}, 0, 200),
    ]
    for rule, from_host, from_remote in table:
        clean.apply(policy("p", "server", ingress=[rule]))
        assert (seen(host), seen(remote)) == (from_host, from_remote), rule


def test_audit_lets_pass_and_says_so(clean: Sandbox) -> None:
    audit = {"policy.sidegate.io/audit": "true"}
    clean.apply(
        policy("p", "server", annotations=audit, ingress=[http_rule("from", "client", GET_OPEN)])
    )
    since = time.time_ns()
    assert clean.status("client", "http://server:8080/closed") == 200
    assert clean.status("other", "http://server:8080/closed") == 200
    time.sleep(0.3)
    assert {f["layer"] for f in clean.flows(since, verdict="audit")} == {"L7", "L3/L4"}


# -- changes --------------------------------------------------------------------------------------


def test_a_policy_change_leaves_listeners_and_clusters_alone(clean: Sandbox) -> None:
    def versions() -> dict[str, str]:
        resources = clean.api.get("/v1/status").json()["xds"]["resources"]
        return {item["name"]: item["version"] for item in resources}

    before = versions()
    clean.apply(policy("p", "server", ingress=[http_rule("from", "client", GET_OPEN)]))
    assert versions() == before


# -- faults ---------------------------------------------------------------------------------------


def test_invalid_objects_are_refused_and_the_rest_holds(clean: Sandbox) -> None:
    bad = policy("bad", "server", ingress=[{"fromEntities": ["moon"]}])
    good = policy("good", "server", ingress=[http_rule("from", "client", GET_OPEN)])
    results = clean.apply(bad, good)
    assert [r["result"] for r in results] == ["invalid", "created"]
    assert results[0]["errors"][0]["field"] == "spec.ingress[0].fromEntities[0]"
    assert clean.status("client", "http://server:8080/closed") == 403


def test_killed_agent_changes_nothing_and_a_new_one_takes_over(clean: Sandbox) -> None:
    clean.apply(policy("p", "server", ingress=[http_rule("from", "client", GET_OPEN)]))
    envoy = clean.envoy_pid()
    os.kill(clean.agent_pid(), signal.SIGKILL)
    time.sleep(0.2)
    assert clean.status("client", "http://server:8080/open") == 200
    assert clean.status("client", "http://server:8080/closed") == 403
    assert clean.status("other", "http://server:8080/open") == 0
    from sandbox.run import start_agent

    start_agent(clean.node, RESOURCES)
    clean.ready()
    assert clean.envoy_pid() == envoy, "adopted"
    assert clean.status("client", "http://server:8080/open") == 200
    assert clean.status("client", "http://server:8080/closed") == 403, "what was applied is kept"
    clean.apply(policy("p", "server", ingress=[http_rule("from", "client", {"path": "/closed"})]))
    assert clean.status("client", "http://server:8080/closed") == 200


def test_killed_envoy_drops_selected_traffic_only_and_comes_back(clean: Sandbox) -> None:
    clean.apply(policy("p", "server", ingress=[http_rule("from", "client", GET_OPEN),
                                               http_rule("from", "other")]))  # fmt: skip
    os.kill(clean.envoy_pid(), signal.SIGKILL)
    assert clean.status("other", "http://server:8080/") == 200, "unselected traffic is untouched"
    end = time.monotonic() + 10
    seen = []
    while time.monotonic() < end and 200 not in seen:
        seen.append(clean.status("client", "http://server:8080/open"))
    assert set(seen) <= {0, 200}, "dropped until it is back, never passed unjudged or answered 403"
    assert seen[-1] == 200
    assert clean.status("client", "http://server:8080/closed") == 403


def test_leftovers_of_a_killed_run_are_cleaned_by_the_next() -> None:
    name = f"k{os.getpid()}"
    first = Sandbox(RESOURCES, name)
    os.kill(first._process.pid, signal.SIGKILL)
    first._process.wait()
    assert first.node.exists()
    second = Sandbox(RESOURCES, name)
    deadline = time.monotonic() + 10  # pods have begun; the server may not listen yet
    try:
        while (status := second.status("client", "http://server:8080/")) != 200:
            assert time.monotonic() < deadline, status
    finally:
        second.close()
    assert not second.node.exists()


# -- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["endpoint", "list"],
        ["identity", "list"],
        ["get", "pods"],
        ["policy", "get"],
        ["map", "list"],
        ["map", "dump", "ipcache"],
        ["observe", "--last", "5"],
        ["envoy", "stats"],
        ["version"],
    ],
)
@pytest.mark.parametrize("form", ["table", "json", "yaml"])
def test_every_command_answers_in_every_form(
    sandbox: Sandbox, command: list[str], form: str
) -> None:
    done = subprocess.run(
        [str(CLI), *command, "--node", sandbox.node.name, "-o", form],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    if form == "json" and command[0] != "observe":
        json.loads(done.stdout)
