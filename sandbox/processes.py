"""The processes of a sandbox namespace, and how they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path


def stop_asked() -> asyncio.Event:
    """Set once somebody ends us: by the terminal, or by a signal."""
    asked = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    return asked


async def ended(process: subprocess.Popen[bytes]) -> int:
    """Its exit code, once it has one. No thread waits: there may be many containers."""
    loop, gone = asyncio.get_running_loop(), asyncio.Event()
    descriptor = os.pidfd_open(process.pid)
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
    return process.wait()


def inside(netns: str) -> list[int]:
    """Everything that runs in a namespace of ours was started by us or by what we started."""
    done = subprocess.run(
        ["ip", "netns", "pids", netns], check=False, capture_output=True, text=True
    )
    return [int(pid) for pid in done.stdout.split()]


def end(pids: Iterable[int], patience: float = 3.0, *, kindly: bool = True) -> None:
    """Each has ``patience`` seconds for each of SIGTERM (``kindly``) and SIGKILL."""
    left = set(pids) - {os.getpid()}
    for number in (signal.SIGTERM, signal.SIGKILL) if kindly else (signal.SIGKILL,):
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
