"""Calls a CNI plugin by the specification (CNI 1.1, "Section 2: Execution Protocol")."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.node import POD_RANGES, Node

PLUGIN = Path(__file__).parent.parent / "cni_plugin" / "bin" / "sidegate-cni"


class CniError(RuntimeError):
    """The plugin's own error; ``code`` is CNI's (11: try again later)."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Attachment:
    """What CNI calls a container: its id, network namespace, interface."""

    container_id: str
    netns: str
    pod_namespace: str
    pod_name: str
    pod_uid: str

    @property
    def arguments(self) -> str:
        return (
            f"IgnoreUnknown=1;K8S_POD_NAMESPACE={self.pod_namespace};"
            f"K8S_POD_NAME={self.pod_name};K8S_POD_UID={self.pod_uid}"
        )


def configuration(node: Node) -> dict[str, Any]:
    """The network configuration that the chart would install."""
    return {
        "cniVersion": "1.1.0",
        "name": "sidegate",
        "type": "sidegate-cni",
        "agentSocket": str(node.run_dir / "agent.sock"),
        "ipam": {"dataDir": str(node.run_dir / "ipam"), "ranges": list(POD_RANGES)},
    }


def call(node: Node, command: str, attachment: Attachment) -> dict[str, Any]:
    """Run the plugin in the node's namespace; its result. Raises CniError."""
    done = subprocess.run(
        node.inside([str(PLUGIN)]),
        check=False,
        capture_output=True,
        text=True,
        input=json.dumps(configuration(node)),
        timeout=30,
        env={
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": attachment.container_id,
            "CNI_NETNS": f"/run/netns/{attachment.netns}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(PLUGIN.parent),
            "CNI_ARGS": attachment.arguments,
        },
    )
    try:
        result: dict[str, Any] = json.loads(done.stdout or "{}")
    except ValueError:
        raise CniError(999, f"{command}: {done.stdout}{done.stderr}") from None
    if done.returncode:
        message = result.get("msg") or done.stderr.strip() or "no message"
        raise CniError(int(result.get("code", 999)), f"{command}: {message}")
    return result


def addresses(result: dict[str, Any]) -> list[str]:
    """The pod's addresses of an ADD result, without their prefix lengths."""
    return [item["address"].partition("/")[0] for item in result.get("ips", [])]
