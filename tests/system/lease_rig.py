"""Leases and containers' cgroups: what a pod's own proxy is known by, for the datapath's tests."""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from node_agent import peer_process
from sandbox.node import Node as SandboxNode
from sandbox.node import remove_cgroup
from tests.system.datapath_rig import Rig
from tests.system.netns import inside

INGRESS, EGRESS, OLD_MODULE = 1, 2, 0  # sides of a lease
_ASK = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], 8080), 0.5) as to:
        to.sendall(b"x")
        print(to.recv(100).decode())
except TimeoutError:
    print("dropped")
"""


class Lease:
    """What the module does."""

    def __init__(self, rig: Rig, endpoint: int) -> None:
        fd = rig.datapath.enforcers.open_lease(endpoint)
        self._page = mmap.mmap(fd, 4096)
        os.close(fd)

    def hold(self, ago: float = 0.0, sides: int = INGRESS | EGRESS) -> None:
        now = time.monotonic_ns() - int(ago * 1e9)
        self._page[:16] = struct.pack("<QII", now, 1, sides)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Held anew all the time."""
        stop = threading.Event()

        def hold() -> None:
            while not stop.wait(0.1):
                self.hold()

        self.hold()
        keeper = threading.Thread(target=hold)
        keeper.start()
        try:
            yield
        finally:
            stop.set()
            keeper.join()


def own_cgroup() -> int:
    """Of the test's own process, and of the servers that it is."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        return peer_process.of(ours).cgroup_id


@contextlib.contextmanager
def cgroup(name: str) -> Iterator[Path]:
    path = SandboxNode(f"sidecar-{os.getpid()}-{name}").cgroup
    assert path, "these tests need cgroup v2"
    path.mkdir(parents=True)
    yield path
    remove_cgroup(path)


def run_in(where: Path, netns: str, program: str, *arguments: str) -> str:
    """What a Python program prints that runs in a cgroup and a network namespace."""
    join = f'echo $$ > {where}/cgroup.procs && exec "$@"'
    command = ["sh", "-c", join, "sh", sys.executable, "-c", program, *arguments]
    with inside(netns):
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)
    return done.stdout.strip()


def reach_from(where: Path, rig: Rig, family: int) -> str:
    """As :func:`tests.system.datapath_rig.reach`, of b by a process of a's in that cgroup."""
    return run_in(where, rig.a.netns, _ASK, rig.b.address(family))
