"""A node on one machine: a network namespace with an uplink to its segment."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from node_agent.config import run_dir_of
from sandbox import processes
from sandbox.segment import Segment, ip
from sandbox.segment import addresses as segment_addresses

POD_RANGES = ("10.244.0.0/24", "fd00:10:244::/64")
# The last of them that are anybody's: no pod gets one before 252 others have.
INGRESS_ADDRESSES = ("10.244.0.254", "fd00:10:244::fffe")
SANDBOX_ROOT = Path("/run/sidegate-sandbox")
_NETNS = Path("/run/netns")
_CGROUP_VIEW = Path("/sys/fs/cgroup")
_OWN = (
    "/run/sidegate", "/etc/cni", "/opt/cni", "/var/lib/sidegate", "/var/lib/cni",
    "/var/lib/kubelet",
)  # fmt: skip
_PAUSE = """
set -e
hostname "$1"; root=$2; cgroup=$3; shift 3
for path in "$@"; do mkdir -p "$path"; done
for path in "$@"; do mount --bind "$root$path" "$path"; done
mount -t bpf bpf /sys/fs/bpf
mount --bind "$cgroup" /sys/fs/cgroup
echo ready
exec sleep infinity
"""
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
        """Apart from the run directory: containers of a cluster's node see another there."""
        return SANDBOX_ROOT / self.name

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

    @property
    def addresses(self) -> list[str]:
        return [str(address.ip) for address in segment_addresses(self.number)]

    @property
    def root(self) -> Path:
        """The directories of a cluster's node that are not the machine's, by their own names."""
        return self.sandbox_dir / "root"

    def enter(self, netns: str) -> list[str]:
        """The beginning of a command that runs in ``netns``, with the node's file system."""
        view = self.sandbox_dir / "pause.pid"
        mount = [f"--mount=/proc/{view.read_text()}/ns/mnt"] if view.exists() else []
        return ["nsenter", f"--net={_NETNS / netns}", *mount, "--"]

    def as_kubelet(self, command: Iterable[str]) -> list[str]:
        """``command`` on the node's network, in the cgroup by which the datapath knows it."""
        where = self.make_cgroup("kubelet")
        if where is None:
            return [*self.enter(self.netns), *command]
        join = 'echo $$ > "$0/cgroup.procs" && exec "$@"'
        return [*self.enter(self.netns), "/bin/sh", "-c", join, str(where), *command]

    def make_cgroup(self, name: str) -> Path | None:
        """Below the node's own, as its processes see it; None as :attr:`cgroup`."""
        if self.cgroup is None:
            return None
        (self.cgroup / name).mkdir(parents=True, exist_ok=True)
        return (_CGROUP_VIEW if self.cluster else self.cgroup) / name

    def start_pause(self) -> None:
        """What keeps the node's file system, hostname and bpffs while no container runs."""
        for path in _OWN:
            (self.root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
        self.make_cgroup("kubelet")
        pause = subprocess.Popen(
            ["nsenter", f"--net={_NETNS / self.netns}", "unshare", "--uts", "--mount",
             "--propagation", "slave", "/bin/sh", "-c", _PAUSE, "sh",
             self.name, str(self.root), str(self._own_cgroup()), *_OWN],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True, cwd="/",
        )  # fmt: skip
        said = pause.stdout.readline() if pause.stdout else ""
        if said != "ready\n":
            raise OSError(f"the file system of node {self.name} was not made: {said.strip()}")
        (self.sandbox_dir / "pause.pid").write_text(str(pause.pid))

    def _own_cgroup(self) -> Path:
        """Raises OSError."""
        if self.cgroup is None:
            raise OSError("cgroup v2 is not mounted: a cluster's nodes need it")
        self.cgroup.mkdir(parents=True, exist_ok=True)
        return self.cgroup

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

    @property
    def csi_sockets(self) -> Path:
        """Of the CSI drivers on this node, each in a directory of its name."""
        return self.root / "var/lib/kubelet/plugins"

    @property
    def reboot_file(self) -> Path:
        """Made to ask a cluster's node to reboot; gone when it has."""
        return self.sandbox_dir / "reboot"

    def remove(self) -> None:
        """End every process in this node's namespaces, then all that is named after it.

        It is also how the leftovers of a killed run go; nothing to remove is no error.
        """
        processes.end(self._processes())
        self.power_off()
        shutil.rmtree(self.sandbox_dir, ignore_errors=True)

    def power_off(self) -> None:
        """Processes and namespaces go at once, and what a boot does not find again: /run."""
        processes.end(self._processes(), kindly=False)
        self.segment.detach(self.number)
        for name in self._namespaces():
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        bpf = self.run_dir / "bpf"
        if os.path.ismount(bpf):
            subprocess.run(["umount", str(bpf)], check=False, capture_output=True)
        if self.cgroup is not None and self.cgroup.exists():
            for path in sorted(self.cgroup.rglob("*"), reverse=True):
                if path.is_dir():
                    remove_cgroup(path)
            remove_cgroup(self.cgroup)
        for directory in (self.run_dir, self.root / "run", self.sandbox_dir / "pods"):
            shutil.rmtree(directory, ignore_errors=True)

    def exists(self) -> bool:
        return (_NETNS / self.netns).exists()

    def _processes(self) -> Iterator[int]:
        return (pid for name in self._namespaces() for pid in processes.inside(name))

    def _namespaces(self) -> list[str]:
        if not _NETNS.exists():
            return []
        own = (self.netns,) if self.cluster else (self.netns, self.router_netns)
        pods = f"{self.netns}-pod-"
        return [p.name for p in _NETNS.iterdir() if p.name in own or p.name.startswith(pods)]


def remove_cgroup(path: Path) -> None:
    """The kernel lets go of one some time after its last process ended. Raises OSError."""
    for _ in range(100):
        try:
            path.rmdir()
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            time.sleep(0.02)
        else:
            return
    path.rmdir()
