"""Two nodes with the chart, a server that one client may read, and questions to all of them."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
import yaml

from sandbox.cluster import kubectl, nodes_of
from sandbox.control_plane import Cluster
from sandbox.execute import NoSuchPod, command_in
from sandbox.images import http_peer

CLUSTER = Cluster("faults")
NODES = nodes_of(CLUSTER, 2)
SYSTEM = "sidegate-system"
URL = "http://{}:8080{}"


def pod(name: str, app: str, node: str, *command: str) -> dict[str, Any]:
    container = {"name": "main", "image": "sidegate/connectivity", "command": list(command)}
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 1},
    }  # fmt: skip


def policy(*paths: str, **spec: Any) -> dict[str, Any]:
    rules = {"http": [{"method": "GET", "path": path} for path in paths]}
    ports = [{"ports": [{"port": "8080", "protocol": "TCP"}], "rules": rules}]
    ingress = [{"fromEndpoints": [{"matchLabels": {"app": "client"}}], "toPorts": ports}]
    return {
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "server"},
        "spec": {"endpointSelector": {"matchLabels": {"app": "server"}}, "ingress": ingress}
        | spec,
    }  # fmt: skip


def apply(*objects: dict[str, Any]) -> str:
    return kubectl(CLUSTER, "apply", "-f", "-", text=yaml.safe_dump_all(objects))


def refused(manifest: dict[str, Any]) -> str:
    with pytest.raises(subprocess.CalledProcessError) as caught:
        apply(manifest)
    return str(caught.value.stderr)


NODE_OF = {"server": NODES[0], "near": NODES[0], "far": NODES[1], "other": NODES[1]}


def run(name: str, *command: str) -> str:
    """Beside the API server, so that it works while that is away."""
    inside = command_in(NODE_OF[name], name, command)
    return subprocess.run(inside, check=False, capture_output=True, text=True, timeout=20).stdout


def address(name: str) -> str:
    state = NODE_OF[name].sandbox_dir / "pods" / f"default_{name}" / "state.json"
    return str(json.loads(state.read_text())["addresses"][0])


def status(client: str, path: str = "/public") -> int:
    answer = run(
        client, str(http_peer()), "get", "-timeout", "2s", URL.format(address("server"), path)
    )
    return int(json.loads(answer)["status"])


def answered(client: str, path: str = "/public") -> int | None:
    """As :func:`status`; None while there is no such pod, or its server."""
    try:
        return status(client, path)
    except (NoSuchPod, OSError, ValueError, StopIteration):
        return None


def verdicts() -> list[int | None]:
    return [answered("near"), answered("far"), answered("far", "/private"), answered("other")]


ROUTER = ("192.0.2.1", "[2001:db8::1]")
ENFORCED = [200, 200, 403, 0]


def agent_says(node: Any) -> str:
    """Its status, or why it has none."""
    socket = node.root / "run/sidegate/agent.sock"
    asked = ["curl", "-s", "-m", "3", "--unix-socket", str(socket), "http://agent/v1/status"]
    return subprocess.run(asked, check=False, capture_output=True, text=True).stdout
