"""A process that outlives the one that started it, and is recognised again."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

TERM_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Detached:
    """A running process. ``start_time`` (clock ticks since boot) tells it from a later one with
    the same pid; ``config`` names what it was started with."""

    pid: int
    start_time: int
    config: str

    @classmethod
    def spawn(
        cls, command: Sequence[str], env: Mapping[str, str], log: Path, config: str
    ) -> Detached:
        """Start in a session of its own, output appended to ``log``, as many files as allowed."""
        with log.open("ab") as output:
            child = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        # Not ours to wait for when it is dropped: `wait` reaps by pid.
        child.returncode = 0
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(child.pid, resource.RLIMIT_NOFILE, (hard, hard))
        return cls(child.pid, start_time(child.pid) or 0, config)

    @classmethod
    def load(cls, path: Path) -> Detached | None:
        """The process that the file tells of, if that very process still runs."""
        try:
            found = cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        return found if found.alive() else None

    def save(self, path: Path) -> None:
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(path)

    def alive(self) -> bool:
        return start_time(self.pid) == self.start_time

    async def wait(self) -> str:
        """Wait for its end; how it ended, as far as that can be known (``""`` if not)."""
        try:
            fd = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return self._reap()
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(fd, ended.set)
        try:
            if self.alive():
                await ended.wait()
        finally:
            loop.remove_reader(fd)
            os.close(fd)
        return self._reap()

    async def terminate(self) -> None:
        """SIGTERM, and SIGKILL when that does not end it."""
        for number, seconds in ((signal.SIGTERM, TERM_SECONDS), (signal.SIGKILL, TERM_SECONDS)):
            if not self.alive():
                return
            os.kill(self.pid, number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wait(), seconds)
                return

    def _reap(self) -> str:
        try:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return ""  # adopted: another's child
        if pid == 0:
            return ""
        code = os.waitstatus_to_exitcode(status)
        return f"exit status {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"


def start_time(pid: int) -> int | None:
    """Field 22 of /proc/pid/stat (proc_pid_stat(5)); None for no process, or a dead one."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
