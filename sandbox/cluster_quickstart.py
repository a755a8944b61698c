"""``make run RUN_ARGS=--cluster``: the chart on a cluster of this machine, and whether it holds."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

from rich.console import Console

from sandbox.binaries import binary
from sandbox.cluster import await_rollout, install, kubectl, prepare, running
from sandbox.control_plane import Cluster
from sandbox.processes import stop_asked

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
    stopped = stop_asked()
    begin = time.monotonic()
    async with running(cluster, _NODES, chained):
        console.print(f"control plane and {_NODES} nodes are up ({since(begin)})")
        settings = ["agent.cni.chained=true"] if chained else []
        await asyncio.to_thread(install, cluster, *settings)
        if chained:  # pods of before are not judged until they are made anew
            kubectl(cluster, "-n", "kube-system", "rollout", "restart", "deployment/coredns")
        await asyncio.to_thread(_await_ready, cluster)
        console.print(f"agents and operators run from the chart ({since(begin)})")
        test = (str(_CLI), "connectivity", "test", f"--kubeconfig={cluster.kubeconfig}")
        code = await (await asyncio.create_subprocess_exec(*test)).wait()
        if not once and not stopped.is_set():
            path = binary("kubernetes", "")
            console.print(_NEXT.format(kubeconfig=cluster.kubeconfig, kubectl=path))
            await stopped.wait()
    return code


def _await_ready(cluster: Cluster) -> None:
    """DNS too. Raises CalledProcessError."""
    await_rollout(cluster)
    what = ("deployment/coredns", f"--timeout={_READY_SECONDS}s")
    kubectl(cluster, "-n", "kube-system", "rollout", "status", *what)


def since(begin: float) -> str:
    """For people."""
    return f"{time.monotonic() - begin:.0f} s"
