"""``sidegate sandbox run --cluster``: a control plane and nodes, on one machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from kubernetes.aio import client, config

from sandbox import cni
from sandbox.binaries import binary, build
from sandbox.control_plane import Cluster, ControlPlane, ControlPlaneError
from sandbox.machine import Machine
from sandbox.node import Node
from sandbox.processes import stop_asked

_FIRST_NODE = 11
_NODES_MAX = 200
_CIDR_SECONDS = 20.0
_REBOOT_SECONDS = 30.0
_MANIFESTS = Path(__file__).parent / "manifests"
# What differs from other nodes: file systems are mounted, and the kubelet has its own cgroup.
CHART_SETTINGS = (
    "agent.mountFilesystems=false",
    "agent.cgroup.kubelet=/sys/fs/cgroup/kubelet",
)
SYSTEM = "sidegate-system"  # the namespace that the chart goes to
_CLI = Path(sys.executable).parent / "sidegate"
_ROLLOUT_SECONDS = 90
_NEEDED = {
    "etcd": "a minute",
    "kubernetes": "ten minutes",
    "cni": "half a minute",
    "coredns": "four minutes",
    "helm": "two minutes",
    "streaming": "half a minute",
    "http-peer": "half a minute",
}
_BESIDES = {
    "istio": "eight minutes",
    "istio-echo": "two minutes",
    "gateway-conformance": "four minutes",
    "envoy-gateway": "six minutes",
}


def nodes_of(cluster: Cluster, count: int) -> list[Node]:
    return [Node(f"{cluster.name}-{n + 1}", cluster.name, _FIRST_NODE + n) for n in range(count)]


def kubectl(cluster: Cluster, *arguments: str, text: str | None = None) -> str:
    """As the administrator; what it printed. Raises CalledProcessError."""
    command = kubectl_command(cluster, *arguments)
    return subprocess.run(command, check=True, capture_output=True, text=True, input=text).stdout


def kubectl_command(cluster: Cluster, *arguments: str) -> list[str]:
    """For whoever runs it some other way than :func:`kubectl`."""
    program = binary("kubernetes", "kubectl")
    return [str(program), f"--kubeconfig={cluster.kubeconfig}", *arguments]


def install(cluster: Cluster, *settings: str) -> None:
    """The chart, as it is for these nodes and with ``settings`` (``name=value``) besides.

    Raises CalledProcessError, whose stderr is helm's.
    """
    given = (f"--set={setting}" for setting in (*CHART_SETTINGS, *settings))
    subprocess.run(
        [str(_CLI), "install", f"--helm={binary('helm', 'helm')}",
         f"--kubeconfig={cluster.kubeconfig}", *given],
        check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def await_rollout(cluster: Cluster) -> None:
    """Until agents, proxies, operators and nodes are ready. Raises CalledProcessError."""
    limit = f"--timeout={_ROLLOUT_SECONDS}s"
    for what in ("ds/sidegate-agent", "ds/sidegate-proxy", "deploy/sidegate-operator"):
        kubectl(cluster, "-n", SYSTEM, "rollout", "status", what, limit)
    kubectl(cluster, "wait", "--for=condition=Ready", "nodes", "--all", limit)


@contextlib.asynccontextmanager
async def running(cluster: Cluster, count: int, chained: str = "") -> AsyncIterator[ControlPlane]:
    """A cluster whose nodes are registered and routed; nothing of it is left afterwards.

    ``chained``: its pods have a network by that reference plugin, before anything is installed.

    Raises ControlPlaneError, CalledProcessError, OSError.
    """
    if not 1 <= count <= _NODES_MAX:
        raise ControlPlaneError(f"{count} nodes: give 1 to {_NODES_MAX}")
    plane, nodes = ControlPlane(cluster), nodes_of(cluster, count)
    async with contextlib.AsyncExitStack() as stack:
        for node in nodes:
            node.remove()
            stack.callback(node.remove)
        stack.callback(plane.stop)
        await asyncio.to_thread(plane.start)
        for node in nodes:
            machine = Machine(plane, node)
            await machine.start()
            stack.push_async_callback(machine.stop)
        admin = await config.new_client_from_config(str(cluster.kubeconfig))  # type: ignore[no-untyped-call]
        stack.push_async_callback(admin.close)
        await _route(cluster, nodes, admin, chained)
        await asyncio.to_thread(kubectl, cluster, "apply", "-f", str(_MANIFESTS))
        yield plane


async def _route(
    cluster: Cluster, nodes: list[Node], admin: client.ApiClient, chained: str
) -> None:
    """What is outside the nodes reaches their pods: as a cloud's routes would do it."""
    core: Any = client.CoreV1Api(admin)
    deadline = asyncio.get_running_loop().time() + _CIDR_SECONDS
    left = {node.name: node for node in nodes}
    while left:
        for item in (await core.list_node()).items:
            cidrs = item.spec.pod_cidrs
            node = left.get(item.metadata.name)
            if node and cidrs:
                del left[node.name]
                for cidr in cidrs:
                    cluster.segment.route(cidr, node.number)
                if chained:
                    cni.install(node, chained, cidrs)
        if left and asyncio.get_running_loop().time() > deadline:
            raise ControlPlaneError(f"the controller manager gave no pod CIDR to {', '.join(left)}")
        await asyncio.sleep(0.05)


def run(name: str, count: int, manifests: Path | None, chained: str = "") -> int:
    """Until a signal; the exit code."""
    cluster = Cluster(name)
    try:
        prepare()
        return asyncio.run(_until_signal(cluster, count, manifests, chained))
    except (ControlPlaneError, subprocess.CalledProcessError, OSError) as error:
        said = getattr(error, "stderr", None) or ""
        print(f"sandbox: {error}\n{said}".rstrip(), file=sys.stderr)
        return 1


def keep_logs(cluster: Cluster, count: int, directory: Path) -> None:
    """Copies of what the control plane and the containers that there are now have said."""
    roots = {node.name: node.sandbox_dir for node in nodes_of(cluster, count)}
    for name, root in (roots | {"control-plane": cluster.directory}).items():
        for log in (*root.glob("*.log"), *root.glob("pods/*/*/log")):
            copy = directory / name / log.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(log, copy)


def prepare(*besides: str) -> None:
    """Build what is not there yet; minutes, the first time. Raises CalledProcessError."""
    for module, duration in (_NEEDED | {each: _BESIDES[each] for each in besides}).items():
        if not binary(module, "").exists():
            print(f"building {module}: {duration} the first time", flush=True)
            build(module)


def reboot(name: str) -> int:
    """Returns when the node has booted again; the exit code."""
    node = Node(name)
    if not node.sandbox_dir.exists():
        print(f"sandbox: no node {name!r} is running", file=sys.stderr)
        return 1
    node.reboot_file.touch()
    deadline = time.monotonic() + _REBOOT_SECONDS
    while node.reboot_file.exists():
        if time.monotonic() > deadline:
            node.reboot_file.unlink(missing_ok=True)
            print(f"sandbox: {name!r} did not reboot: is it a cluster's node?", file=sys.stderr)
            return 1
        time.sleep(0.1)
    return 0


async def _until_signal(cluster: Cluster, count: int, manifests: Path | None, chained: str) -> int:
    stopped = stop_asked()
    async with running(cluster, count, chained) as plane:
        (cluster.directory / "pid").write_text(str(os.getpid()))
        if manifests:
            print(await asyncio.to_thread(kubectl, cluster, "apply", "-Rf", str(manifests)), end="")
        names = ", ".join(node.name for node in nodes_of(cluster, count))
        print(f"cluster {cluster.name} is up: nodes {names}; API server {plane.outside}")
        print(f"  export KUBECONFIG={cluster.kubeconfig}")
        print(f"  export PATH={binary('kubernetes', '')}:$PATH   # kubectl")
        print("running; Ctrl-C stops it", flush=True)
        await stopped.wait()
    return 0
