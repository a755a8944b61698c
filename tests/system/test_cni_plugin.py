"""The CNI plugin's binary in real namespaces, with a stand-in for the agent on its Unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from tests.system.netns import inside, ip

pytestmark = pytest.mark.system
PLUGIN = Path(__file__).parents[2] / "cni_plugin" / "bin" / "sidegate-cni"
NODE = f"sgc{os.getpid()}"


def show(netns: str, *arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["ip", "-n", netns, "-j", *arguments], check=True, capture_output=True, text=True
    )
    rows: list[dict[str, Any]] = json.loads(done.stdout or "[]")
    return rows


class Agent(socketserver.ThreadingUnixStreamServer):
    """Remembers endpoints, and whether the host's end was up when each was put."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        self.endpoints: dict[str, dict[str, Any]] = {}
        self.up_at_put: list[bool] = []
        self.refusal, self.refusal_status = "", 409
        self.pod_cidrs: list[str] = []
        super().__init__(str(path), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Agent

    def _answer(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: Any) -> None:
        pass

    def do_PUT(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == f"/v1/endpoints/{body['container_id']}"
        (link,) = show(NODE, "link", "show", body["host_ifname"])
        self.server.up_at_put.append("UP" in link["flags"])
        if self.server.refusal:
            self._answer(self.server.refusal_status, {"error": self.server.refusal})
            return
        self.server.endpoints[body["container_id"]] = body
        self._answer(201, {"endpoint_id": 7})

    def do_DELETE(self) -> None:
        self.server.endpoints.pop(self.path.rpartition("/")[2], None)
        self._answer(200, {})

    def do_GET(self) -> None:
        if self.path == "/v1/config":
            self._answer(200, {"pod_cidrs": self.server.pod_cidrs})
            return
        items = list(self.server.endpoints.values())
        self._answer(200, {"items": items} if self.path == "/v1/endpoints" else {"ok": True})


class Rig:
    """A node's namespace, pods' namespaces, and calls of the plugin in the node's."""

    def __init__(self, tmp_path: Path) -> None:
        self.socket, self.ipam = tmp_path / "agent.sock", tmp_path / "ipam"
        self.ranges = ["10.77.0.0/29", "fd00:77::/64"]
        self.names = [NODE]
        ip("netns", "add", NODE)
        ip("link", "set", "lo", "up", netns=NODE)

    def pod(self, name: str) -> str:
        netns = f"{NODE}-{name}"
        ip("netns", "add", netns)
        self.names.append(netns)
        return netns

    def close(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def call(self, command: str, container: str = "", netns: str = "", **config: Any) -> Any:
        """The plugin's exit status and its result or error."""
        done = subprocess.run(
            ["nsenter", f"--net=/run/netns/{NODE}", str(PLUGIN)],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
            input=json.dumps({
                "cniVersion": "1.1.0", "name": "sidegate", "type": "sidegate-cni",
                "agentSocket": str(self.socket),
                "ipam": {"dataDir": str(self.ipam), "ranges": self.ranges}, **config,
            }),
            env={
                **os.environ,
                "CNI_COMMAND": command,
                "CNI_CONTAINERID": container,
                "CNI_NETNS": f"/run/netns/{netns}" if netns else "",
                "CNI_IFNAME": "eth0",
                "CNI_ARGS": f"K8S_POD_NAMESPACE=shop;K8S_POD_NAME={container};K8S_POD_UID=u-1",
            },
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout or "null")

    def leftovers(self) -> list[str]:
        """Interfaces of pods and addresses in use."""
        links = [link["ifname"] for link in show(NODE, "link") if link["ifname"].startswith("sg")]
        return links + [f.name for f in self.ipam.glob("*[:.]*")]


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    with contextlib.closing(made):
        yield made


@pytest.fixture
def agent(rig: Rig) -> Iterator[Agent]:
    with Agent(rig.socket) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


def reach(source: str, target: str, address: str) -> bool:
    """A TCP connection from a socket in one namespace to a listener in another."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(target):
        listener = socket.create_server((address, 0), family=family)
    with inside(source):
        client = socket.socket(family)
    with listener, client:
        client.settimeout(2)
        return client.connect_ex(listener.getsockname()) == 0


def test_pods_reach_each_other_once_the_agent_knows_them(rig: Rig, agent: Agent) -> None:
    a, b = rig.pod("a"), rig.pod("b")
    status, result = rig.call("ADD", "a", a)
    assert status == 0, result
    assert [i["address"] for i in result["ips"]] == ["10.77.0.2/32", "fd00:77::2/128"]
    assert rig.call("ADD", "b", b)[0] == 0
    assert agent.up_at_put == [False, False]
    put = agent.endpoints["a"]
    (host,) = show(NODE, "link", "show", put["host_ifname"])
    assert (host["ifindex"], host["address"]) == (put["host_ifindex"], put["host_mac"])
    assert (put["pod_namespace"], put["pod_name"], put["pod_uid"]) == ("shop", "a", "u-1")
    assert (put["ipv4"], put["ipv6"]) == ("10.77.0.2", "fd00:77::2")
    (eth0,) = show(a, "link", "show", "eth0")
    assert eth0["address"] == put["mac"]
    for netns, device in ((a, "eth0"), (NODE, put["host_ifname"])):
        states = [
            n["state"] for n in show(netns, "neigh", "show", "dev", device, "nud", "permanent")
        ]
        assert states == [["PERMANENT"]] * 2
    for target, address in (
        (NODE, "10.77.0.1"), (NODE, "fd00:77::1"), (b, "10.77.0.3"), (b, "fd00:77::3"),
        (a, "127.0.0.1"),
    ):  # fmt: skip
        assert reach(a, target, address), address


def test_check_finds_what_is_missing(rig: Rig, agent: Agent) -> None:
    netns = rig.pod("a")
    _, result = rig.call("ADD", "a", netns)
    assert rig.call("CHECK", "a", netns, prevResult=result) == (0, None)
    endpoint = agent.endpoints.pop("a")
    assert rig.call("CHECK", "a", netns, prevResult=result)[1]["code"] == 3
    agent.endpoints["a"] = endpoint
    ip("addr", "del", "fd00:77::2/128", "dev", "eth0", netns=netns)
    status, error = rig.call("CHECK", "a", netns, prevResult=result)
    assert status == 1
    assert "fd00:77::2" in error["msg"]
    assert rig.call("CHECK", "unknown", netns)[1]["code"] == 3


def test_del_leaves_nothing_and_never_fails_for_what_is_gone(rig: Rig, agent: Agent) -> None:
    netns = rig.pod("a")
    assert rig.call("ADD", "a", netns)[0] == 0
    for _ in range(2):
        assert rig.call("DEL", "a", netns) == (0, None)
    assert rig.call("DEL", "unknown") == (0, None)
    assert (rig.leftovers(), agent.endpoints) == ([], {})


def test_add_again_answers_the_same(rig: Rig, agent: Agent) -> None:
    netns = rig.pod("a")
    first = rig.call("ADD", "a", netns)
    held = rig.leftovers()
    assert first[0] == 0
    assert rig.call("ADD", "a", netns) == first
    assert rig.leftovers() == held
    (host,) = show(NODE, "link", "show", agent.endpoints["a"]["host_ifname"])
    assert host["ifindex"] == agent.endpoints["a"]["host_ifindex"]
    assert reach(netns, NODE, "10.77.0.1")


def test_without_the_agent(rig: Rig) -> None:
    netns = rig.pod("a")
    status, error = rig.call("ADD", "a", netns)
    assert (status, error["code"]) == (1, 11)
    assert str(rig.socket) in error["msg"]
    assert rig.leftovers() == []
    assert [link["ifname"] for link in show(netns, "link")] == ["lo"]
    assert rig.call("DEL", "a", netns) == (0, None)
    assert rig.call("STATUS")[1]["code"] == 50


def test_a_refusal_of_the_agent_is_rolled_back(rig: Rig, agent: Agent) -> None:
    agent.refusal = "pod shop/a: no such pod"
    status, error = rig.call("ADD", "a", rig.pod("a"))
    assert (status, error["code"]) == (1, 102)
    assert agent.refusal in error["msg"]
    assert rig.leftovers() == []


def test_an_agent_that_starts_is_tried_again(rig: Rig, agent: Agent) -> None:
    agent.refusal, agent.refusal_status = "it has not heard from the API server", 503
    status, error = rig.call("ADD", "a", rig.pod("a"))
    assert (status, error["code"]) == (1, 11)
    assert rig.leftovers() == []


def test_ranges_of_the_agent(rig: Rig, agent: Agent) -> None:
    netns, config = rig.pod("a"), {"ipam": {"dataDir": str(rig.ipam)}}
    status, error = rig.call("ADD", "a", netns, **config)
    assert (status, error["code"]) == (1, 11)
    assert "pod CIDR" in error["msg"]
    assert rig.leftovers() == []
    agent.pod_cidrs = ["10.78.0.0/29"]
    status, result = rig.call("ADD", "a", netns, **config)
    assert (status, [i["address"] for i in result["ips"]]) == (0, ["10.78.0.2/32"])


def test_exhausted_addresses(rig: Rig, agent: Agent) -> None:
    rig.ranges = ["fd00:77::/64", "10.77.0.0/30"]
    assert rig.call("ADD", "a", rig.pod("a"))[0] == 0
    before = rig.leftovers()
    status, error = rig.call("ADD", "b", rig.pod("b"))
    assert (status, error["code"]) == (1, 100)
    assert "10.77.0.0/30" in error["msg"]
    assert rig.leftovers() == before
    assert set(agent.endpoints) == {"a"}


def test_gc_keeps_what_is_valid(rig: Rig, agent: Agent) -> None:
    for name in ("a", "b"):
        assert rig.call("ADD", name, rig.pod(name))[0] == 0
    assert rig.call("GC")[1]["code"] == 7
    assert len(rig.leftovers()) == 6
    keep: dict[str, Any] = {"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}]}
    assert rig.call("GC", **keep) == (0, None)
    assert set(agent.endpoints) == {"a"}
    assert len(rig.leftovers()) == 3


@pytest.mark.parametrize(
    ("command", "container", "config", "code", "words"),
    [
        ("ADD", "a", {"prevResult": {"cniVersion": "1.1.0"}}, 7, "prevResult"),
        ("ADD", "a", {"cniVersion": "0.1.0"}, 1, "0.1.0"),
        ("ADD", "a", {"ipam": {"ranges": []}}, 7, "dataDir"),
        ("ADD", "a", {}, 4, "CNI_NETNS"),
        ("DEL", "../a", {}, 4, "CNI_CONTAINERID"),
        ("MAKE", "a", {}, 4, "MAKE"),
    ],
)
def test_bad_input_is_named(
    rig: Rig, command: str, container: str, config: dict[str, Any], code: int, words: str
) -> None:
    status, error = rig.call(command, container, **config)
    assert (status, error["code"]) == (1, code)
    assert words in error["msg"]


def test_version_and_status(rig: Rig, agent: Agent) -> None:
    assert rig.call("VERSION")[1]["supportedVersions"] == ["1.0.0", "1.1.0"]
    assert rig.call("STATUS") == (0, None)
    assert rig.call("ADD", "a", rig.pod("a"), cniVersion="1.0.0")[1]["cniVersion"] == "1.0.0"
