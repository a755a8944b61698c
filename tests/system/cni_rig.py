"""The CNI plugin's binary in real namespaces, with a stand-in for the agent on its Unix socket."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import subprocess
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.system.netns import inside, ip

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
