"""A whole node for tests: `sidegate sandbox run` as a user starts it, and a client of its agent."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from sandbox.execute import command_in
from sandbox.images import http_peer
from sandbox.node import Node

CLI = Path(sys.executable).parent / "sidegate"


class Sandbox:
    """Runs until :meth:`close`; nothing of it is left then."""

    def __init__(self, resources: Path, name: str, *options: str) -> None:
        self.node = Node(name)
        self.resources = resources
        self._process = subprocess.Popen(
            [str(CLI), "sandbox", "run", str(resources), "--node", name, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout
        said = []
        for line in self._process.stdout:
            said.append(line)
            if line.startswith("running"):
                break
        else:
            raise AssertionError("".join(said))
        transport = httpx.HTTPTransport(uds=str(self.node.run_dir / "agent.sock"))
        self.api = httpx.Client(transport=transport, base_url="http://agent", timeout=30)

    def close(self) -> None:
        self.api.close()
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(30) == 0

    def apply(self, *objects: dict[str, Any]) -> list[dict[str, Any]]:
        answer = self.api.post("/v1/apply", json={"objects": list(objects)})
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        return results

    def delete(self, *objects: dict[str, Any]) -> None:
        assert self.api.post("/v1/delete", json={"objects": list(objects)}).status_code == 200

    def delete_policies(self) -> None:
        """All CiliumNetworkPolicies that there are."""
        found = self.api.get("/v1/resources", params={"kind": "CiliumNetworkPolicy"}).json()
        self.delete(*(each["manifest"] for each in found["items"]))

    def run(self, pod: str, *command: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command_in(self.node, pod, command),
            check=False,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def get(self, pod: str, url: str, *options: str) -> dict[str, Any]:
        """One request by the HTTP peer; status 0 where there was no answer."""
        command = [str(http_peer()), "get", "-timeout", "1s", *options, url]
        answer: dict[str, Any] = json.loads(self.run(pod, *command).stdout)
        return answer

    def status(self, pod: str, url: str, *options: str) -> int:
        return int(self.get(pod, url, *options)["status"])

    def address(self, pod: str, family: int) -> str:
        found = self.api.get(f"/v1/endpoints/{pod}").json()
        return str(found["ipv4"] if family == 4 else f"[{found['ipv6']}]")

    def flows(self, since: int = 0, **filters: str) -> list[dict[str, Any]]:
        answer = self.api.get("/v1/flows", params={"last": "500", **filters})
        flows = [json.loads(line) for line in answer.text.splitlines()]
        return [flow for flow in flows if flow["time"] >= since]

    def agent_pid(self) -> int:
        """The agent itself, whose parent is the sandbox."""
        lock = os.stat(self.node.run_dir / "agent.lock").st_ino
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == str(lock):
                return int(fields[4])
        raise AssertionError("no agent holds the lock")

    def envoy_pid(self) -> int:
        return int(self.api.get("/v1/status").json()["envoy"]["pid"])

    def ready(self, seconds: float = 10) -> None:
        """Wait until the agent answers and Envoy is ready."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                answer = self.api.get("/v1/status")
                if answer.status_code == 200 and answer.json()["envoy"]["ready"]:
                    return
            except httpx.HTTPError:
                pass
            time.sleep(0.05)
        raise AssertionError("not ready in time")


def policy(name: str, app: str, *, annotations: Any = None, **directions: Any) -> dict[str, Any]:
    """A CiliumNetworkPolicy on the pods of an app."""
    return {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": name, "annotations": annotations or {}},
        "spec": {"endpointSelector": {"matchLabels": {"app": app}}, **directions},
    }


def http_rule(side: str, app: str, *rules: dict[str, str]) -> dict[str, Any]:
    """A rule for port 8080; without HTTP rules it is L4 only."""
    ports: dict[str, Any] = {"ports": [{"port": "8080", "protocol": "TCP"}]}
    if rules:
        ports["rules"] = {"http": list(rules)}
    return {f"{side}Endpoints": [{"matchLabels": {"app": app}}], "toPorts": [ports]}
