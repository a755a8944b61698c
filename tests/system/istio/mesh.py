"""The mesh that all of these tests share, and how it is looked into."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from sandbox.cluster import kubectl, nodes_of
from sandbox.control_plane import Cluster
from sandbox.execute import command_in
from sandbox.images import http_peer
from sandbox.node import SANDBOX_ROOT, Node

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


def address_of(pod: str) -> str:
    return kubectl(MESH, "get", "pod", pod, "-o", "jsonpath={.status.podIP}")


def reasons(pod: str, since: int) -> set[str]:
    """Why anything was denied on a pod's node since then (``time.time_ns()``)."""
    said = agent(pod, "observe", "--last", "500", "--verdict", "denied", "-o", "json")
    flows = map(json.loads, said.splitlines())
    return {flow["reason"] for flow in flows if flow["time"] >= since}


def within(node: str, pod: str, arguments: Sequence[str]) -> str:
    """As :func:`sandbox.mesh_probes.ask`, for which the API server is needed, and far quicker."""
    command = [str(http_peer()), "get", "--timeout=2s", *arguments]
    done = subprocess.run(
        command_in(Node(node), pod, command), check=True, capture_output=True, text=True
    )
    return str(json.loads(done.stdout)["status"] or "none")


def istiod() -> list[int]:
    return [pid for node in NODES for pid in pids(node.name, "istio-system_istiod", "discovery")]


@contextlib.contextmanager
def away(*which: int) -> Iterator[None]:
    """They hang, which is worse than to be dead: nobody notices by a reset."""
    assert which
    for pid in which:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in which:
            os.kill(pid, signal.SIGCONT)


@contextlib.contextmanager
def without_filter(name: str) -> Iterator[None]:
    """One of our EnvoyFilters is away, and back afterwards. Raises CalledProcessError."""
    names = ("-n", "istio-system", "envoyfilters.networking.istio.io", name)
    manifest = json.loads(kubectl(MESH, "get", *names, "-o", "json"))
    for field in ("resourceVersion", "uid"):
        del manifest["metadata"][field]
    kubectl(MESH, "delete", *names)
    try:
        yield
    finally:
        kubectl(MESH, "apply", "-f", "-", text=json.dumps(manifest))


@contextlib.contextmanager
def applied(manifests: str) -> Iterator[None]:
    """Gone afterwards, whatever of it was made. Raises CalledProcessError."""
    try:
        kubectl(MESH, "apply", "-f", "-", text=manifests)
        yield
    finally:
        kubectl(MESH, "delete", "--ignore-not-found", "-f", "-", text=manifests)


def pids(node: str, pod: str, container: str) -> list[int]:
    """First processes of a container; ``pod`` is the namespace, "_" and how its name begins."""
    states = Path(SANDBOX_ROOT / node / "pods").glob(f"{pod}*/state.json")
    return [json.loads(state.read_text())["pids"][container] for state in states]
