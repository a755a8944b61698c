"""A node on one machine: a network namespace with an uplink to a router namespace behind it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from node_agent.config import run_dir_of

POD_RANGES = ("10.244.0.0/24", "fd00:10:244::/64")
UPLINK = "eth0"
_NODE_ADDRESSES = ("192.0.2.10/24", "2001:db8::10/64")
_ROUTER_ADDRESSES = ("192.0.2.1/24", "2001:db8::1/64")
_NETNS = Path("/run/netns")
_CGROUPS = Path("/sys/fs/cgroup/unified")


def ip(*arguments: str, netns: str | None = None) -> None:
    """Raises CalledProcessError, with what ip said in its stderr."""
    where = ["-n", netns] if netns else []
    subprocess.run(["ip", *where, *arguments], check=True, capture_output=True, text=True)


@dataclass(frozen=True, slots=True)
class Node:
    """Names of everything that belongs to one sandbox node."""

    name: str = "default"

    @property
    def run_dir(self) -> Path:
        return run_dir_of(self.name)

    @property
    def sandbox_dir(self) -> Path:
        return self.run_dir / "sandbox"

    @property
    def netns(self) -> str:
        return f"sidegate-{self.name}"

    @property
    def router_netns(self) -> str:
        return f"{self.netns}-router"

    @property
    def cgroup(self) -> Path | None:
        """None where cgroup v2 is not mounted: containers then share their parent's."""
        for root in (_CGROUPS, Path("/sys/fs/cgroup")):
            if (root / "cgroup.procs").exists() and (root / "cgroup.controllers").exists():
                return root / "sidegate" / self.name
        return None

    def pod_netns(self, namespace: str, name: str) -> str:
        return f"{self.netns}-pod-{namespace}-{name}"

    def inside(self, command: Iterable[str]) -> list[str]:
        """``command`` in the node's network namespace, in our own mount namespace."""
        return ["nsenter", f"--net={_NETNS / self.netns}", *command]

    def create(self) -> None:
        """Make both namespaces. Raises CalledProcessError."""
        self.sandbox_dir.mkdir(parents=True, exist_ok=True)
        for netns in (self.netns, self.router_netns):
            ip("netns", "add", netns)
            ip("link", "set", "lo", "up", netns=netns)
        ip("link", "add", UPLINK, "type", "veth", "peer", "name", UPLINK,
           "netns", self.router_netns, netns=self.netns)  # fmt: skip
        both = ((self.netns, _NODE_ADDRESSES), (self.router_netns, _ROUTER_ADDRESSES))
        for netns, addresses in both:
            ip("link", "set", UPLINK, "up", netns=netns)
            for address in addresses:
                nodad = ["nodad"] if ":" in address else []
                ip("addr", "add", address, "dev", UPLINK, *nodad, netns=netns)
        for router, own, pods in zip(_ROUTER_ADDRESSES, _NODE_ADDRESSES, POD_RANGES, strict=True):
            ip("route", "add", "default", "via", router.partition("/")[0], netns=self.netns)
            ip("route", "add", pods, "via", own.partition("/")[0], netns=self.router_netns)

    def remove(self) -> None:
        """End every process in this node's namespaces, then all that is named after it.

        It is also how the leftovers of a killed run go; nothing to remove is no error.
        """
        names = self._namespaces()
        _end(pid for name in names for pid in _processes(name))
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        bpf = self.run_dir / "bpf"
        if os.path.ismount(bpf):
            subprocess.run(["umount", str(bpf)], check=False, capture_output=True)
        if self.cgroup is not None and self.cgroup.exists():
            for path in sorted(self.cgroup.rglob("*"), reverse=True):
                if path.is_dir():
                    path.rmdir()
            self.cgroup.rmdir()
        shutil.rmtree(self.run_dir, ignore_errors=True)

    def exists(self) -> bool:
        return (_NETNS / self.netns).exists()

    def _namespaces(self) -> list[str]:
        if not _NETNS.exists():
            return []
        own = (self.netns, self.router_netns)
        pods = f"{self.netns}-pod-"
        return [p.name for p in _NETNS.iterdir() if p.name in own or p.name.startswith(pods)]


def _processes(netns: str) -> list[int]:
    """Everything that runs in a namespace of ours was started by us or by what we started."""
    done = subprocess.run(
        ["ip", "netns", "pids", netns], check=False, capture_output=True, text=True
    )
    return [int(pid) for pid in done.stdout.split()]


def _end(pids: Iterable[int], patience: float = 3.0) -> None:
    left = set(pids) - {os.getpid()}
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        deadline = time.monotonic() + patience
        while left and time.monotonic() < deadline:
            left = {pid for pid in left if _is_alive(pid)}
            time.sleep(0.02)


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
