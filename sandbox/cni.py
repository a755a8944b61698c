"""Calls CNI plugins by the specification (CNI 1.1, "Section 2: Execution Protocol")."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sandbox.binaries import binary
from sandbox.node import POD_RANGES, Node

PLUGIN = Path(__file__).parent.parent / "cni_plugin" / "bin" / "sidegate-cni"
TRY_AGAIN = 11


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


def install(node: Node, chained: str = "", pod_cidrs: Iterable[str] = POD_RANGES) -> None:
    """The network of a node, as an administrator would write it.

    ``chained``: the reference plugin (bridge, ptp) that makes the interfaces. Of a node by itself
    ours comes behind it; in a cluster that is for the agent to write.
    """
    data = "/var/lib/cni/ipam" if node.cluster else str(node.run_dir / "ipam")
    agent: dict[str, Any] = {
        "type": "sidegate-cni",
        "agentSocket": str(node.run_dir / "agent.sock"),
    }
    if chained:
        ipam = {
            "type": "host-local",
            "dataDir": data,
            "ranges": [[{"subnet": cidr}] for cidr in pod_cidrs],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        }
        own = {"bridge": "cni0", "isGateway": True} if chained == "bridge" else {}
        plugins: list[dict[str, Any]] = [{"type": chained, **own, "ipam": ipam}]
        if not node.cluster:
            plugins.append(agent)
    else:
        plugins = [{**agent, "ipam": {"dataDir": data, "ranges": list(pod_cidrs)}}]
    directory = _configurations(node)
    directory.mkdir(parents=True, exist_ok=True)
    made = {"cniVersion": "1.1.0", "name": "sidegate", "plugins": plugins}
    (directory / "10-sandbox.conflist").write_text(json.dumps(made))


def network(node: Node) -> dict[str, Any] | None:
    """The first configuration list that the node has; None: it is not ready for pods."""
    for path in sorted(_configurations(node).glob("*.conflist")):
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    return None


def _configurations(node: Node) -> Path:
    return node.root / "etc/cni/net.d"


def call(node: Node, command: str, attachment: Attachment) -> dict[str, Any]:
    """Run the chain in the node's namespaces; the last result. Raises CniError."""
    chain = network(node)
    if chain is None:
        raise CniError(TRY_AGAIN, "no network is configured on the node yet: is the agent up?")
    kept = node.sandbox_dir / "cni" / f"{attachment.container_id}.json"
    result = {}
    if command != "ADD" and kept.exists():
        result = json.loads(kept.read_text())
    plugins = chain["plugins"]
    for plugin in reversed(plugins) if command == "DEL" else plugins:
        config = {**plugin, "cniVersion": chain["cniVersion"], "name": chain["name"]}
        if result:
            config["prevResult"] = result
        answer = _run(node, command, attachment, config)
        if command == "ADD":
            result = answer
    if command == "ADD":
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(result))
    elif command == "DEL":
        kept.unlink(missing_ok=True)
    return result


def addresses(result: dict[str, Any]) -> list[str]:
    """The pod's addresses of an ADD result, without their prefix lengths."""
    return [item["address"].partition("/")[0] for item in result.get("ips", [])]


def _run(
    node: Node, command: str, attachment: Attachment, config: dict[str, Any]
) -> dict[str, Any]:
    path = [str(folder) for folder in _plugin_folders(node)]
    program = next(
        (f"{at}/{config['type']}" for at in path if Path(at, config["type"]).exists()), ""
    )
    if not program:
        raise CniError(4, f"{command}: no plugin {config['type']!r} in {':'.join(path)}")
    done = subprocess.run(
        [*node.enter(node.netns), program],
        check=False,
        capture_output=True,
        text=True,
        input=json.dumps(config),
        timeout=30,
        env={
            **os.environ,
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": attachment.container_id,
            "CNI_NETNS": f"/run/netns/{attachment.netns}",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": ":".join(path),
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


def _plugin_folders(node: Node) -> Iterator[Path]:
    if node.cluster:
        yield node.root / "opt/cni/bin"
    yield PLUGIN.parent
    yield binary("cni", "")
