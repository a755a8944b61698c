"""A whole cluster for tests: `sidegate sandbox run --cluster` as a user starts it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sandbox import processes
from sandbox.cluster import kubectl_command
from sandbox.control_plane import Cluster
from sandbox.node import SANDBOX_ROOT, Node

CLI = Path(sys.executable).parent / "sidegate"
kubectl = kubectl_command


@contextlib.contextmanager
def running(cluster: Cluster, nodes: int) -> Iterator[None]:
    """Nothing of it is left afterwards."""
    sandbox = subprocess.Popen(
        [str(CLI), "sandbox", "run", "--cluster", "--nodes", str(nodes), "--name", cluster.name],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert sandbox.stdout
        assert any(line.startswith("running") for line in sandbox.stdout), "it did not come up"
        yield
    finally:
        sandbox.send_signal(signal.SIGTERM)
        sandbox.wait(60)


def quickstart(cluster: Cluster, *arguments: str, seconds: float) -> str:
    """What ``make run RUN_ARGS="... --once"`` prints; all came out as expected and nothing is
    left of its cluster."""
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.quickstart", *arguments, "--once"],
        check=False, capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    names = (p.name for p in Path("/run/netns").iterdir())
    assert [name for name in names if name.startswith(f"sidegate-{cluster.name}")] == []
    assert list(SANDBOX_ROOT.glob(f"*{cluster.name}*")) == []
    return done.stdout


def container_cgroup(node: Node, pod: str, container: str) -> Path:
    """Of a container that runs; ``pod`` is the namespace, "_" and how its name begins."""
    (state,) = (SANDBOX_ROOT / node.name / "pods").glob(f"{pod}*/state.json")
    pid = json.loads(state.read_text())["pids"][container]
    group = Path(f"/proc/{pid}/cgroup").read_text().rpartition("0::/")[2].splitlines()[0]
    assert node.cgroup, "these tests need cgroup v2"
    return node.cgroup.parents[1] / group


def end_container(node: Node, pod: str, container: str) -> None:
    """As a runtime does: every process of it at once. ``pod`` as above."""
    (container_cgroup(node, pod, container) / "cgroup.kill").write_text("1")


def pid_of(netns: str, name: str) -> int:
    """Of the process that runs a program by this name, or a script of it."""
    for pid in processes.inside(netns):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if any(Path(word.decode()).name == name for word in words[:2]):
            return pid
    raise AssertionError(f"no {name} runs in {netns}")


def agent_of(node: Node) -> int:
    """0 while there is none."""
    for pid in processes.inside(node.netns):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"sidegate\0agent\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return pid
    return 0


@contextlib.contextmanager
def api_server_away(cluster: Cluster) -> Iterator[None]:
    """Neither answers nor refuses: the worst way to be away."""
    pid = pid_of(cluster.netns, "kube-apiserver")
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
        eventually("ok", lambda: _ready(cluster), 60)


def _ready(cluster: Cluster) -> str:
    asked = kubectl(cluster, "get", "--raw", "/readyz", "--request-timeout=2s")
    return subprocess.run(asked, check=False, capture_output=True, text=True).stdout


def eventually(wanted: Any, ask: Any, seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while (seen := ask()) != wanted and time.monotonic() < deadline:
        time.sleep(0.1)
    assert seen == wanted, f"{seen} instead of {wanted}"
