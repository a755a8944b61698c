"""The mesh that all of these tests share, and how it is looked into."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from sandbox.cluster import kubectl, nodes_of
from sandbox.control_plane import Cluster
from sandbox.node import SANDBOX_ROOT

MESH = Cluster("mesh")
NODES = nodes_of(MESH, 2)


def agent(pod: str, *arguments: str) -> str:
    """What ``sidegate`` says in the agent of the pod's node. Raises CalledProcessError."""
    return on_node(node_of(pod), *arguments)


def on_node(node: str, *arguments: str) -> str:
    """What ``sidegate`` says in that node's agent. Raises CalledProcessError."""
    name = kubectl(
        MESH, "get", "pods", "-n", "sidegate-system", "-l", "app.kubernetes.io/component=agent",
        f"--field-selector=spec.nodeName={node}", "-o", "jsonpath={.items[0].metadata.name}",
    )  # fmt: skip
    return kubectl(
        MESH, "exec", "-n", "sidegate-system", name, "-c", "agent", "--", "sidegate", *arguments
    )


def sidecars() -> dict[str, dict[str, object]]:
    """The rows of ``sidegate istio status`` of all nodes, by pod. Raises CalledProcessError."""
    said = [on_node(node.name, "istio", "status", "-o", "json") for node in NODES]
    return {row["pod"]: row for each in said for row in json.loads(each)["items"]}


def enforces(pod: str) -> bool:
    """Whether its proxy is connected and has acknowledged a policy."""
    try:
        row = sidecars().get(pod, {})
    except (subprocess.CalledProcessError, ValueError):
        return False
    return bool(row.get("connected") and row.get("acknowledged"))


def node_of(pod: str) -> str:
    return kubectl(MESH, "get", "pod", pod, "-o", "jsonpath={.spec.nodeName}")


def pids(node: str, pod: str, container: str) -> list[int]:
    """First processes of a container; ``pod`` is the namespace, "_" and how its name begins."""
    states = Path(SANDBOX_ROOT / node / "pods").glob(f"{pod}*/state.json")
    return [json.loads(state.read_text())["pids"][container] for state in states]
