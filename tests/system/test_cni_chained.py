"""Our CNI plugin behind the reference plugins, with a real agent and Envoy; cnitool drives it."""

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

from sandbox.binaries import binary
from sandbox.cni import PLUGIN
from tests.system.netns import ip
from tests.system.sandbox_rig import Sandbox, http_rule, policy

pytestmark = pytest.mark.system

RESOURCES = Path(__file__).parent / "resources"
GET_OPEN = {"method": "GET", "path": "/open.*"}
SELECTED = policy("p", "server", ingress=[http_rule("from", "client", GET_OPEN)])
# What the plugins keep of attachments is ours for the test, not the machine's.
_OWN_STATE = 'mount --bind "$0" /var/lib/cni && exec "$@"'


@pytest.fixture(scope="module", params=["bridge", "ptp"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    made = Sandbox(RESOURCES, f"ch{os.getpid()}", "--chained", request.param)
    try:
        # IPv6 addresses of these plugins take a moment, the bridge's own too (RFC 4862).
        url = f"http://{made.address('server', 6)}:8080/"
        made.apply(policy("w", "server", ingress=[http_rule("from", "client", {"path": "/"})]))
        end = time.monotonic() + 10
        while made.status("client", url) != 200 and time.monotonic() < end:
            time.sleep(0.1)
        made.delete(policy("w", "server"))
        yield made
    finally:
        made.close()
        assert not made.node.exists()


@pytest.fixture
def selected(sandbox: Sandbox) -> Iterator[Sandbox]:
    """The server's HTTP is open to one client only."""
    sandbox.apply(SELECTED)
    yield sandbox
    sandbox.delete(SELECTED)


class CniTool:
    """The specification's own runtime, in the node's namespace."""

    def __init__(self, sandbox: Sandbox, state: Path) -> None:
        self.sandbox, self._state = sandbox, state
        self.netns = f"{sandbox.node.netns}-pod-tool"
        ip("netns", "add", self.netns)
        ip("link", "set", "lo", "up", netns=self.netns)
        Path("/var/lib/cni").mkdir(parents=True, exist_ok=True)

    def __call__(self, command: str, network: str = "sidegate") -> subprocess.CompletedProcess[str]:
        tool = [str(binary("cni", "cnitool")), command, network, f"/run/netns/{self.netns}"]
        return subprocess.run(
            self.sandbox.node.inside(
                ["unshare", "--mount", "sh", "-c", _OWN_STATE, str(self._state), *tool]
            ),
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
            env={
                **os.environ,
                "NETCONFPATH": str(self.sandbox.node.root / "etc/cni/net.d"),
                "CNI_PATH": f"{PLUGIN.parent}:{binary('cni', '')}",
                "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=tool",
            },
        )

    def endpoint(self) -> dict[str, Any] | None:
        answer = self.sandbox.api.get("/v1/endpoints/default/tool")
        return answer.json() if answer.status_code == 200 else None


@pytest.fixture
def cnitool(sandbox: Sandbox, tmp_path: Path) -> Iterator[CniTool]:
    tool = CniTool(sandbox, tmp_path)
    try:
        yield tool
    finally:
        tool("del")
        subprocess.run(["ip", "netns", "del", tool.netns], check=False, capture_output=True)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
def test_http_policy(sandbox: Sandbox, direction: str, family: int) -> None:
    url = f"http://{sandbox.address('server', family)}:8080"
    assert sandbox.status("client", url + "/closed") == 200
    by = {
        "ingress": policy("q", "server", ingress=[http_rule("from", "client", GET_OPEN)]),
        "egress": policy("q", "client", egress=[http_rule("to", "server", GET_OPEN)]),
    }[direction]
    sandbox.apply(by)
    try:
        answer = sandbox.get("client", url + "/open")
        assert answer["status"] == 200
        remote = json.loads(answer["body"])["remote"]
        assert remote.startswith(f"{sandbox.address('client', family)}:"), "its address is kept"
        assert sandbox.status("client", url + "/closed") == 403
        assert sandbox.status("other", url + "/open") == (0 if direction == "ingress" else 200)
    finally:
        sandbox.delete(by)


def test_a_dead_envoy_opens_nothing(selected: Sandbox) -> None:
    os.kill(selected.envoy_pid(), signal.SIGKILL)
    seen, end = [], time.monotonic() + 10
    while time.monotonic() < end and 403 not in seen:
        seen.append(selected.status("client", "http://server:8080/closed"))
    assert set(seen) <= {0, 403}
    assert seen[-1] == 403


def test_a_pod_of_cnitool(selected: Sandbox, cnitool: CniTool) -> None:
    """Added, it is an endpoint and judged; checked, ended, and nothing of it is left."""
    assert cnitool("status").returncode == 0
    done = cnitool("add")
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    endpoint = cnitool.endpoint()
    assert endpoint
    assert [i["address"].partition("/")[0] for i in result["ips"]] == [
        endpoint["ipv4"], endpoint["ipv6"],
    ]  # fmt: skip
    assert cnitool("check").returncode == 0
    server = selected.address("server", 4)
    curl = ["ip", "netns", "exec", cnitool.netns, "curl", "-s", "-o", "/dev/null", "-m", "1",
            "-w", "%{http_code}", f"http://{server}:8080/open"]  # fmt: skip
    said = subprocess.run(curl, check=False, capture_output=True, text=True, timeout=10)
    assert said.stdout == "000", "it is nobody that the policy names"
    selected.delete(SELECTED)
    said = subprocess.run(curl, check=False, capture_output=True, text=True, timeout=10)
    assert said.stdout == "200"
    assert cnitool("del").returncode == 0
    assert cnitool.endpoint() is None
    links = subprocess.run(
        ["ip", "-n", selected.node.netns, "link", "show", endpoint["host_ifname"]],
        check=False, capture_output=True,
    )  # fmt: skip
    assert links.returncode != 0
    assert cnitool("del").returncode == 0


def test_a_check_finds_that_the_agent_lost_it(sandbox: Sandbox, cnitool: CniTool) -> None:
    assert cnitool("add").returncode == 0
    endpoint = cnitool.endpoint()
    assert endpoint
    sandbox.api.delete(f"/v1/endpoints/{endpoint['container_id']}")
    done = cnitool("check")
    assert done.returncode != 0
    assert "the agent has no endpoint" in done.stdout + done.stderr


def test_a_bridge_without_an_address_is_refused(sandbox: Sandbox, cnitool: CniTool) -> None:
    """Envoy could not answer such a pod; it does not start, and the error says what to change."""
    directory = sandbox.node.root / "etc/cni/net.d"
    network = json.loads((directory / "10-sandbox.conflist").read_text())
    ipam = network["plugins"][0]["ipam"]
    network["plugins"][0] = {"type": "bridge", "bridge": "cni1", "ipam": ipam}
    network["name"] = "no-gateway"
    (directory / "20-no-gateway.conflist").write_text(json.dumps(network))
    done = cnitool("add", "no-gateway")
    assert done.returncode != 0
    assert "give the bridge an address (isGateway: true)" in done.stdout + done.stderr
    assert cnitool.endpoint() is None
    cnitool("del", "no-gateway")


def test_gc_ends_what_the_runtime_does_not_know(sandbox: Sandbox, cnitool: CniTool) -> None:
    """cnitool itself names no list of valid attachments: then nothing is ended."""
    pods = sandbox.api.get("/v1/endpoints").json()["items"]
    assert cnitool("add").returncode == 0
    assert "valid-attachments is required" in cnitool("gc").stderr
    assert len(sandbox.api.get("/v1/endpoints").json()["items"]) >= len(pods)
    assert cnitool("add").returncode == 0
    network = json.loads((sandbox.node.root / "etc/cni/net.d/10-sandbox.conflist").read_text())
    valid = [{"containerID": p["container_id"], "ifname": p["container_ifname"]} for p in pods]
    subprocess.run(
        sandbox.node.inside([str(PLUGIN)]),
        check=True,
        text=True,
        timeout=30,
        input=json.dumps({
            **network["plugins"][1], "cniVersion": "1.1.0", "name": "sidegate",
            "cni.dev/valid-attachments": valid,
        }),
        env={**os.environ, "CNI_COMMAND": "GC"},
    )  # fmt: skip
    left = sandbox.api.get("/v1/endpoints").json()["items"]
    assert [e["container_id"] for e in left] == [p["container_id"] for p in pods]
    assert sandbox.status("client", "http://server:8080/") == 200
