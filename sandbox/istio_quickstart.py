"""``make run RUN_ARGS=--istio``: a real Istio with Sidegate's module in its sidecars, and whether
policy holds inside strict mTLS."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sandbox.binaries import binary
from sandbox.cluster import await_rollout, install, kubectl, prepare, running
from sandbox.cluster_quickstart import since
from sandbox.control_plane import Cluster
from sandbox.processes import stop_asked

EXAMPLES = Path(__file__).parent.parent / "examples"
_ISTIOCTL = Path(sys.executable).parent / "sidegate-istioctl"
_NODES = 2
_PATIENCE = 20.0
_NEXT = """[bold]What to try next[/bold], from another terminal:
  export KUBECONFIG={kubeconfig}
  export PATH={path}:$PATH
  kubectl get pods; kubectl get envoyfilters -A
  kubectl exec mallory -c app -- http get http://reviews:8080/reviews/1
  kubectl edit cnp reviews
(Ctrl-C here ends everything)"""


@dataclass(frozen=True, slots=True)
class Probe:
    """One line of ``istio-probes.yaml``."""

    who: str
    method: str
    path: str
    expect: str


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
        await asyncio.to_thread(apply_example, cluster)
        failed = await asyncio.to_thread(_probe, console, cluster)
        if not once and not stopped.is_set():
            path = f"{binary('kubernetes', '')}:{binary('istio', '')}"
            console.print(_NEXT.format(kubeconfig=cluster.kubeconfig, path=path))
            await stopped.wait()
    return 1 if failed else 0


def install_istio(cluster: Cluster) -> None:
    """As a user does; our sidecars are a plain Envoy. Raises CalledProcessError."""
    tools = f"{binary('kubernetes', '')}:{binary('istio', '')}"
    subprocess.run(
        [str(_ISTIOCTL), "install", "-y", "--stock-envoy", "--set", "profile=minimal",
         f"--kubeconfig={cluster.kubeconfig}"],
        check=True, capture_output=True, text=True, timeout=180,
        env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
    )  # fmt: skip
    kubectl(cluster, "label", "namespace", "default", "istio-injection=enabled", "--overwrite")


def apply_example(cluster: Cluster) -> None:
    """Until its pods are ready. Raises CalledProcessError."""
    kubectl(cluster, "apply", "-f", str(EXAMPLES / "istio"))
    kubectl(cluster, "wait", "--for=condition=Ready", "pods", "--all", "--timeout=60s")


def load() -> list[Probe]:
    """The example's probes."""
    return [Probe(**item) for item in yaml.safe_load((EXAMPLES / "istio-probes.yaml").read_text())]


def ask(cluster: Cluster, who: str, arguments: Sequence[str]) -> str:
    """The status that a pod's request ends with; "none" without an answer."""
    try:
        said = kubectl(cluster, "exec", who, "-c", "app", "--", "http", "get", *arguments)
        status = json.loads(said.splitlines()[-1])["status"]
    except (subprocess.CalledProcessError, ValueError, LookupError):
        return "none"
    return str(status) if status else "none"


def seen(cluster: Cluster, probe: Probe) -> str:
    """What comes of it, once it is what is expected or patience ends."""
    arguments = ("--method", probe.method, f"http://reviews:8080{probe.path}")
    end = time.monotonic() + _PATIENCE
    while True:
        status = ask(cluster, probe.who, arguments)
        if status == probe.expect or time.monotonic() > end:
            return status
        time.sleep(0.5)


def _probe(console: Console, cluster: Cluster) -> int:
    table = Table(title="Inside mTLS", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("who", "what", "expected", "seen"):
        table.add_column(name)
    probes, failed = load(), 0
    for probe in probes:
        status = seen(cluster, probe)
        ok = status == probe.expect
        failed += not ok
        shown = f"[green]{status}[/green]" if ok else f"[red]{status} ✘[/red]"
        table.add_row(probe.who, f"{probe.method} {probe.path}", probe.expect, shown)
    console.print(table)
    console.print(f"{len(probes) - failed} of {len(probes)} as expected")
    return failed
