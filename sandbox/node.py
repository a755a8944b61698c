"""A node on one machine: a network namespace with an uplink to its segment."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from node_agent.config import run_dir_of
from sandbox import processes
from sandbox.segment import Segment, ip

POD_RANGES = ("10.244.0.0/24", "fd00:10:244::/64")
_NETNS = Path("/run/netns")
_CGROUPS = Path("/sys/fs/cgroup/unified")


@dataclass(frozen=True, slots=True)
class Node:
    """Names of everything that belongs to one sandbox node.

    ``cluster`` is the segment that it is on; "" for one of its own. ``number`` is its place there.
    """

    name: str = "default"
    cluster: str = ""
    number: int = 10

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
    def segment(self) -> Segment:
        return Segment(self.cluster or self.name)

    @property
    def router_netns(self) -> str:
        return self.segment.router_netns

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
        """Raises CalledProcessError. The segment of a cluster must be there."""
        self.sandbox_dir.mkdir(parents=True, exist_ok=True)
        if not self.cluster:
            self.segment.create()
        ip("netns", "add", self.netns)
        ip("link", "set", "lo", "up", netns=self.netns)
        self.segment.attach(self.netns, self.number)
        if not self.cluster:
            for pods in POD_RANGES:
                self.segment.route(pods, self.number)

    def remove(self) -> None:
        """End every process in this node's namespaces, then all that is named after it.

        It is also how the leftovers of a killed run go; nothing to remove is no error.
        """
        names = self._namespaces()
        processes.end(pid for name in names for pid in processes.inside(name))
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
        own = (self.netns,) if self.cluster else (self.netns, self.router_netns)
        pods = f"{self.netns}-pod-"
        return [p.name for p in _NETNS.iterdir() if p.name in own or p.name.startswith(pods)]
