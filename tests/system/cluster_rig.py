"""A whole cluster for tests: `sidegate sandbox run --cluster` as a user starts it."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from sandbox.binaries import binary
from sandbox.control_plane import Cluster

CLI = Path(sys.executable).parent / "sidegate"


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


def kubectl(cluster: Cluster, *arguments: str) -> list[str]:
    """The command of the administrator's kubectl."""
    program = binary("kubernetes", "kubectl")
    return [str(program), f"--kubeconfig={cluster.kubeconfig}", *arguments]
