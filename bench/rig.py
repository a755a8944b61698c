"""A sandbox node for measuring, and requests a second through it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from sandbox.execute import command_in
from sandbox.images import http_peer
from sandbox.node import Node

CLI = Path(sys.executable).parent / "sidegate"
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")


def pod(name: str, image: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": [{"name": "main", "image": f"sidegate.test/{image}"}]},
    }


def policy(name: str, app: str, peer: str, *rules: dict[str, str]) -> dict[str, Any]:
    ports: dict[str, Any] = {"ports": [{"port": "8080", "protocol": "TCP"}]}
    if rules:
        ports["rules"] = {"http": list(rules)}
    peers = [{"matchLabels": {"app": peer}}]
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "endpointSelector": {"matchLabels": {"app": app}},
            "ingress": [{"fromEndpoints": peers, "toPorts": [ports]}],
        },
    }


class Rig:
    """Pods ``client`` and ``server`` on a node of their own."""

    def __init__(self, node: Node, api: httpx.Client) -> None:
        self.node, self.api = node, api

    def apply(self, *objects: dict[str, Any]) -> None:
        answer = self.api.post("/v1/apply", json={"objects": list(objects)})
        bad = [r for r in answer.json()["results"] if r["errors"]]
        if bad:
            raise RuntimeError(str(bad))

    def delete(self, *objects: dict[str, Any]) -> None:
        self.api.post("/v1/delete", json={"objects": list(objects)})

    def status(self) -> Any:
        return self.api.get("/v1/status").json()

    def rate(self, url: str, seconds: int = 3) -> float:
        """Requests/s of wrk in the client pod: 16 connections, one thread."""
        command = ["wrk", "-t1", "-c16", f"-d{seconds}s", url]
        done = subprocess.run(
            command_in(self.node, "client", command), check=True, capture_output=True, text=True
        )
        found = _RATE.search(done.stdout)
        if found is None or "Non-2xx" in done.stdout:
            raise RuntimeError(done.stdout)
        return float(found[1])


@contextlib.contextmanager
def rig(directory: Path) -> Iterator[Rig]:
    """A running node; ``directory`` is where its resources are written."""
    node = Node(f"bench{os.getpid()}")
    pods = [pod("client", "client"), pod("server", "http")]
    (directory / "pods.yaml").write_text(yaml.safe_dump_all(pods))
    process = subprocess.Popen(
        [str(CLI), "sandbox", "run", str(directory), "--node", node.name],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        if not any(line.startswith("running") for line in process.stdout):
            raise RuntimeError("the sandbox did not start")
        transport = httpx.HTTPTransport(uds=str(node.run_dir / "agent.sock"))
        with httpx.Client(transport=transport, base_url="http://agent", timeout=60) as api:
            yield Rig(node, api)
    finally:
        process.terminate()
        process.wait(30)


def hold(rig: Rig, url: str) -> subprocess.Popen[str]:
    """The HTTP peer on one live connection, printing each change of the status."""
    command = [str(http_peer()), "hold", "-duration", "120s", url]
    return subprocess.Popen(
        command_in(rig.node, "client", command), stdout=subprocess.PIPE, text=True
    )


def line(process: subprocess.Popen[str]) -> Any:
    assert process.stdout
    return json.loads(process.stdout.readline())
