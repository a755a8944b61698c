"""Network namespaces of the processes below a cgroup, and sockets opened inside them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

_CLONE_NEWNET = 0x40000000
_SO_NETNS_COOKIE = 71  # asm-generic/socket.h
_libc = ctypes.CDLL(None, use_errno=True)
_T = TypeVar("_T")


def of_cgroup(cgroup: Path) -> list[Path]:
    """One path for each namespace that a process of ``cgroup``, or below it, is in."""
    found: dict[int, Path] = {}
    for directory, _, _ in os.walk(cgroup):  # one that goes meanwhile is no error to it
        with contextlib.suppress(OSError):  # it went, or it is threaded
            for pid in Path(directory, "cgroup.procs").read_text().split():
                path = Path("/proc", pid, "ns/net")
                with contextlib.suppress(OSError):
                    found.setdefault(path.stat().st_ino, path)
    return list(found.values())


def inside(namespace: Path, call: Callable[[], _T]) -> _T:
    """``call`` in a thread that is in ``namespace``. Raises OSError, and what ``call`` raises.

    The thread ends with it, so nothing of ours can be left in the wrong namespace.
    """

    def work() -> _T:
        with open(namespace, "rb") as file:
            if _libc.setns(file.fileno(), _CLONE_NEWNET) < 0:
                number = ctypes.get_errno()
                raise OSError(number, f"enter {namespace}: {os.strerror(number)}")
        return call()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(work).result()


def cookie_of(namespace: Path) -> int:
    """By which BPF programs know it; of no meaning after a reboot. Raises OSError."""
    return inside(namespace, own_cookie)


def own_cookie() -> int:
    """Of the namespace that the calling thread is in."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        raw = any_socket.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
        return int.from_bytes(raw, "little")
