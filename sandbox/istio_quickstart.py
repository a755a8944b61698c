"""``make run RUN_ARGS=--istio``: a real Istio with Sidegate's module in its sidecars, and whether
policy holds inside strict mTLS, for HTTP and Kafka."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console

from sandbox import mesh_steps
from sandbox.binaries import binary
from sandbox.cluster import SYSTEM, await_rollout, install, kubectl, prepare, running
from sandbox.cluster_quickstart import since
from sandbox.control_plane import Cluster
from sandbox.mesh_probes import EXAMPLE
from sandbox.processes import stop_asked

_ISTIOCTL = Path(sys.executable).parent / "sidegate-istioctl"
_NODES = 2
_NEXT = """[bold]What to try next[/bold], from another terminal:
  export KUBECONFIG={kubeconfig}
  export PATH={path}:$PATH
  kubectl get pods,cnp; kubectl get envoyfilters -A
  kubectl exec mallory -c app -- http get http://reviews:8080/reviews/1
  kubectl exec auditor -c app -- kcat -b kafka:9092 -C -t audit -e
  kubectl edit cnp reviews
  kubectl delete cnp --all; kubectl apply -f {example}/02-l4.yaml
  kubectl exec -n {system} ds/sidegate-agent -c agent -- sidegate observe --follow
  kubectl exec -n {system} ds/sidegate-agent -c agent -- sidegate istio status
(Ctrl-C here ends everything)"""


async def run(console: Console, name: str, *, once: bool) -> int:
    """The exit code. Raises ControlPlaneError, CalledProcessError, OSError."""
    prepare("istio")
    cluster = Cluster(name)
    stopped = stop_asked()
    begin = time.monotonic()
    async with running(cluster, _NODES):
        console.print(f"control plane and {_NODES} nodes are up ({since(begin)})")
        await asyncio.to_thread(install, cluster, "istio.enabled=true")
        await asyncio.to_thread(await_rollout, cluster)
        console.print(f"Sidegate runs from the chart ({since(begin)})")
        await asyncio.to_thread(install_istio, cluster)
        console.print(f"Istio runs, with Sidegate in its sidecars ({since(begin)})")
        await asyncio.to_thread(apply_example, cluster, "app.yaml")
        console.print(f"the example's pods are ready ({since(begin)})")
        failed = await asyncio.to_thread(mesh_steps.run, console, cluster)
        if not once and not stopped.is_set():
            path = f"{binary('kubernetes', '')}:{binary('istio', '')}"
            console.print(
                _NEXT.format(kubeconfig=cluster.kubeconfig, path=path, example=EXAMPLE,
                             system=SYSTEM)
            )  # fmt: skip
            await stopped.wait()
    return 1 if failed else 0


def istioctl(cluster: Cluster, *arguments: str) -> str:
    """Ours, as the administrator; what it printed. Raises CalledProcessError."""
    tools = f"{binary('kubernetes', '')}:{binary('istio', '')}"
    done = subprocess.run(
        [str(_ISTIOCTL), *arguments, f"--kubeconfig={cluster.kubeconfig}"],
        check=True, capture_output=True, text=True, timeout=180,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
    )  # fmt: skip
    return done.stdout


def install_istio(cluster: Cluster) -> None:
    """As a user does; our sidecars are a plain Envoy. Raises CalledProcessError."""
    istioctl(cluster, "install", "-y", "--stock-envoy", "--set", "profile=minimal")
    kubectl(cluster, "label", "namespace", "default", "istio-injection=enabled", "--overwrite")


def apply_example(cluster: Cluster, file: str = "") -> None:
    """That file of it, or all of it, until its pods are ready. Raises CalledProcessError."""
    kubectl(cluster, "apply", "-f", str(EXAMPLE / file))
    kubectl(cluster, "wait", "--for=condition=Ready", "pods", "--all", "--timeout=90s")
