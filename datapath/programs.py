"""Pins under one bpffs: maps and TCX links outlive the agent, a new agent takes them over."""

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


class Programs:
    """The loaded object of one node."""

    def __init__(self, directory: Path, object_file: Path = OBJECT) -> None:
        """Mount bpffs at ``directory`` unless it is in one, load, pin. Raises BpfError, OSError."""
        self._directory = directory
        self._links = directory / "links"
        directory.mkdir(parents=True, exist_ok=True)
        if not _is_bpffs(directory):
            subprocess.run(["mount", "-t", "bpf", "bpf", str(directory)], check=True)
        self._links.mkdir(exist_ok=True)
        maps, self._programs = self._load(object_file)
        self.maps = {name: Map(fd, name) for name, fd in maps.items()}

    def attach(self, program: str, ifindex: int, hook: str) -> None:
        """Attach, or replace the program of the link that an earlier agent pinned."""
        path = self._links / f"{ifindex}-{hook}"
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
                if error.errno != errno.ENOLINK:  # the interface is gone, its number in use again
                    raise
                path.unlink()
            else:
                return
            finally:
                os.close(link)
        link = libbpf.create_tcx_link(fd, ifindex, _HOOKS[hook])
        try:
            libbpf.pin(link, path)
        finally:
            os.close(link)

    def detach(self, ifindex: int) -> None:
        for hook in _HOOKS:
            (self._links / f"{ifindex}-{hook}").unlink(missing_ok=True)

    def attached(self) -> list[int]:
        """Interfaces that have a pinned link."""
        return sorted({int(path.name.partition("-")[0]) for path in self._links.iterdir()})

    def unpin(self) -> None:
        """Give everything up: links first, so that nothing runs on maps that go."""
        for ifindex in self.attached():
            self.detach(ifindex)
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
            path.name: libbpf.get_pinned(path)
            for path in self._directory.iterdir()
            if path.is_file() and "." not in path.name  # progs.debug and maps.debug are bpffs own
        }
        try:
            maps, programs = libbpf.load_object(object_file, pinned)
        except BpfError as error:
            if not pinned:
                raise
            log.warning("pinned maps are of another version, replacing them", error=str(error))
            for name in pinned:
                (self._directory / name).unlink()
            maps, programs = libbpf.load_object(object_file, {})
        finally:
            for fd in pinned.values():
                os.close(fd)
        for name, fd in maps.items():
            if not (self._directory / name).exists():
                libbpf.pin(fd, self._directory / name)
        return maps, programs


def _is_bpffs(directory: Path) -> bool:
    """By the file system's type: its root has the same magic number as every directory below."""
    done = subprocess.run(
        ["stat", "-f", "-c", "%t", str(directory)], check=True, capture_output=True, text=True
    )
    return done.stdout.strip() == "cafe4a11"
