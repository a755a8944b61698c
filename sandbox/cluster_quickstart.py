"""``make run RUN_ARGS=--cluster``: the chart on a cluster of this machine, and whether it holds."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from sandbox.binaries import binary
from sandbox.cluster import CHART_SETTINGS, kubectl, prepare, running
from sandbox.control_plane import Cluster

_CLI = Path(sys.executable).parent / "sidegate"
_NODES = 2
_READY_SECONDS = 90
_NEXT = """[bold]What to try next[/bold], from another terminal:
  export KUBECONFIG={kubeconfig}
  export PATH={kubectl}:$PATH
  kubectl get nodes,pods -A -o wide
  kubectl apply -f examples/quickstart/policies.yaml; kubectl get cnp
  .venv/bin/sidegate connectivity test --keep
(Ctrl-C here ends everything)"""


async def run(console: Console, name: str, *, once: bool, chained: str = "") -> int:
    """The exit code. Raises ControlPlaneError, CalledProcessError, OSError."""
    prepare()
    cluster = Cluster(name)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    begin = time.monotonic()
    async with running(cluster, _NODES, chained):
        console.print(f"control plane and {_NODES} nodes are up ({_since(begin)})")
        code = await _install(cluster, chained=bool(chained))
        if code == 0:
            if chained:  # pods of before are not judged until they are made anew
                kubectl(cluster, "-n", "kube-system", "rollout", "restart", "deployment/coredns")
            await asyncio.to_thread(_wait, cluster)
            console.print(f"agents and operators run from the chart ({_since(begin)})")
            code = await _sidegate("connectivity", "test", f"--kubeconfig={cluster.kubeconfig}")
        if not once and not stopped.is_set():
            path = binary("kubernetes", "")
            console.print(_NEXT.format(kubeconfig=cluster.kubeconfig, kubectl=path))
            await stopped.wait()
    return code


async def _install(cluster: Cluster, *, chained: bool) -> int:
    settings = [f"--set={setting}" for setting in CHART_SETTINGS]
    settings += ["--set=agent.cni.chained=true"] if chained else []
    helm = binary("helm", "helm")
    return await _sidegate(
        "install", f"--helm={helm}", f"--kubeconfig={cluster.kubeconfig}", *settings, quiet=True
    )


def _wait(cluster: Cluster) -> None:
    """Until agents, operators, nodes and DNS are ready. Raises CalledProcessError."""
    for namespace, what in (
        ("sidegate-system", "daemonset/sidegate-agent"),
        ("sidegate-system", "deployment/sidegate-operator"),
    ):
        kubectl(cluster, "-n", namespace, "rollout", "status", what, f"--timeout={_READY_SECONDS}s")
    ready = ("--for=condition=Ready", "nodes", "--all", f"--timeout={_READY_SECONDS}s")
    kubectl(cluster, "wait", *ready)
    kubectl(cluster, "-n", "kube-system", "rollout", "status", "deployment/coredns",
            f"--timeout={_READY_SECONDS}s")  # fmt: skip


async def _sidegate(*arguments: str, quiet: bool = False) -> int:
    """Its output is ours; of a quiet one only what went wrong."""
    process = await asyncio.create_subprocess_exec(
        str(_CLI), *arguments, stdout=subprocess.DEVNULL if quiet else None
    )
    return await process.wait()


def _since(begin: float) -> str:
    return f"{time.monotonic() - begin:.0f} s"
