"""Pins under one bpffs: maps and links outlive the agent, a new agent takes them over."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import structlog

from datapath import libbpf
from datapath.build import OBJECT
from datapath.libbpf import BpfError, Map

log = structlog.get_logger(__name__)

_HOOKS = {"ingress": libbpf.TCX_INGRESS, "egress": libbpf.TCX_EGRESS}
_OUTER = {"ingress": libbpf.TCX_FIRST, "egress": libbpf.TCX_LAST}


class Programs:
    """A loaded object of one node; several share a directory, and the maps that both name."""

    def __init__(self, directory: Path, object_file: Path = OBJECT) -> None:
        """Mount bpffs at ``directory`` unless it is in one, load, pin. Raises BpfError, OSError."""
        self._directory = directory
        self._links = directory / "links"
        self._cgroup_links = directory / "cgroup_links"
        directory.mkdir(parents=True, exist_ok=True)
        if not _is_bpffs(directory):
            subprocess.run(["mount", "-t", "bpf", "bpf", str(directory)], check=True)
        self._links.mkdir(exist_ok=True)
        maps, self._programs = self._load(object_file)
        self.maps = {name: Map(fd, name) for name, fd in maps.items()}

    def attach(self, program: str, ifindex: int, hook: str) -> None:
        """Attach, or replace the program of the link that an earlier agent pinned."""
        self._link(program, self._links / f"{ifindex}-{hook}", ifindex, _HOOKS[hook])

    def attach_outer(self, program: str, ifindex: int, hook: str) -> None:
        """As :meth:`attach`, beside what is there: the first at ingress, the last at egress."""
        path = self._links / f"{ifindex}-{hook}-outer"
        self._link(program, path, ifindex, _HOOKS[hook], _OUTER[hook])

    def detach_outer(self, ifindex: int) -> None:
        for hook in _HOOKS:
            path = self._links / f"{ifindex}-{hook}-outer"
            if path.exists():
                _detach(path)

    def attach_cgroup(self, program: str, cgroup: Path, hook: str) -> None:
        """As :meth:`attach`, to a cgroup v2 directory and all below it."""
        self._cgroup_links.mkdir(exist_ok=True)
        fd = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY)
        try:
            path = self._cgroup_links / f"{os.fstat(fd).st_ino}-{hook}"
            self._link(program, path, fd, libbpf.CGROUP_HOOKS[hook])
        finally:
            os.close(fd)

    def _link(self, program: str, path: Path, target: int, hook: int, flags: int = 0) -> None:
        fd = self._programs[program]
        try:
            link = libbpf.get_pinned(path)
        except BpfError as error:
            if error.errno != errno.ENOENT:
                raise
        else:
            try:
                libbpf.update_link(link, fd)
            except BpfError as error:
                if error.errno != errno.ENOLINK:  # the target is gone, its number in use again
                    raise
                path.unlink()
            else:
                return
            finally:
                os.close(link)
        link = libbpf.create_link(fd, target, hook, flags)
        try:
            libbpf.pin(link, path)
        finally:
            os.close(link)

    def detach(self, ifindex: int) -> None:
        for path in self._links.glob(f"{ifindex}-*"):
            _detach(path)

    def detach_cgroups(self, keep: Path | None = None) -> None:
        """From every cgroup but ``keep``."""
        if not self._cgroup_links.exists():
            return
        own = f"{keep.stat().st_ino}-" if keep else None
        for path in self._cgroup_links.iterdir():
            if own is None or not path.name.startswith(own):
                _detach(path)
        if own is None:
            self._cgroup_links.rmdir()

    def attached(self) -> list[int]:
        """Interfaces that have a pinned link."""
        return sorted({int(path.name.partition("-")[0]) for path in self._links.iterdir()})

    def close(self) -> None:
        """Let the descriptors go; what is pinned and attached stays."""
        for fd in (*self._programs.values(), *(each.fd for each in self.maps.values())):
            os.close(fd)

    def unpin_maps(self) -> None:
        """Of this object alone; its programs must be detached."""
        for name in self.maps:
            (self._directory / name).unlink(missing_ok=True)

    def unpin(self) -> None:
        """Give everything up: links first, so that nothing runs on maps that go."""
        for ifindex in self.attached():
            self.detach(ifindex)
        self.detach_cgroups()
        for path in [*self._links.iterdir(), self._links]:
            path.unlink() if path.is_file() else path.rmdir()
        if os.path.ismount(self._directory):
            subprocess.run(["umount", str(self._directory)], check=True)
        else:
            for path in self._directory.iterdir():
                path.unlink()
            self._directory.rmdir()

    def _load(self, object_file: Path) -> tuple[dict[str, int], dict[str, int]]:
        pinned = {
            name: libbpf.get_pinned(self._directory / name)
            for name in libbpf.map_names(object_file)
            if (self._directory / name).exists()
        }
        try:
            maps, programs = libbpf.load_object(object_file, pinned)
        except BpfError as error:
            if not pinned:
                raise
            maps, programs = libbpf.load_object(object_file, {})
            log.warning("pinned maps are of another version, replacing them", error=str(error))
            for name in pinned:
                (self._directory / name).unlink()
        finally:
            for fd in pinned.values():
                os.close(fd)
        for name, fd in maps.items():
            if not (self._directory / name).exists():
                libbpf.pin(fd, self._directory / name)
        return maps, programs


def _detach(path: Path) -> None:
    """At once: the kernel lets go of a link some time after its last pin is gone."""
    link = libbpf.get_pinned(path)
    try:
        libbpf.detach_link(link)
    finally:
        os.close(link)
    path.unlink()


def _is_bpffs(directory: Path) -> bool:
    """By the file system's type: its root has the same magic number as every directory below."""
    done = subprocess.run(
        ["stat", "-f", "-c", "%t", str(directory)], check=True, capture_output=True, text=True
    )
    return done.stdout.strip() == "cafe4a11"
