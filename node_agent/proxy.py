"""``sidegate proxy``: keeps a node's Envoy where the agent does not, so that it outlives agents.

In a cluster a container's end is that of all its processes: an Envoy of the agent's would end its
connections with every upgrade (docs/adr/0011).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from kube_store.files import replace_file
from kube_store.logs import configure
from l7_proxy_ext.bootstrap import bootstrap
from l7_proxy_ext.supervisor import Supervisor
from node_agent.config import AgentConfig

log = structlog.get_logger(__name__)

_TELL_SECONDS = 1.0
_SILENT_SECONDS = 5.0


def supervisor_of(config: AgentConfig) -> Supervisor:
    return Supervisor(
        config.envoy_dir,
        bootstrap(config.node, config.run_dir, bpf_dir=config.bpf_dir),
        config.module.parent,
        config.workers,
        pins=_pins(config),
    )


class External:
    """In the agent: the Envoy of a ``sidegate proxy`` elsewhere, by what that says of it."""

    def __init__(self, config: AgentConfig) -> None:
        self._file = _status_file(config)

    async def start(self) -> None:
        """Nothing is to be done."""

    async def detach(self) -> None:
        """Nothing is to be done."""

    def status(self) -> dict[str, Any]:
        """As :meth:`Supervisor.status`; ``state`` is "unattended" where nobody keeps it."""
        said: dict[str, Any] = {"state": "unattended", "pid": None, "restarts": 0, "errors": []}
        with contextlib.suppress(OSError, ValueError):
            told: Mapping[str, Any] = json.loads(self._file.read_text())
            said |= told
            if time.time() - self._file.stat().st_mtime > _SILENT_SECONDS:
                said |= {"state": "unattended"}
        return said


def run(config: AgentConfig, log_level: str) -> int:
    """Until a signal: Envoy ends then too. The exit code."""
    configure(log_level)
    asyncio.run(_until_signal(config))
    return 0


async def _until_signal(config: AgentConfig) -> None:
    keeping = asyncio.create_task(_keep(config))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, keeping.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await keeping


async def _keep(config: AgentConfig) -> None:
    supervisor = supervisor_of(config)
    config.envoy_dir.mkdir(parents=True, exist_ok=True)
    waiting = False
    try:
        while True:
            if not all(pin.exists() for pin in _pins(config)):  # the module opens them as it starts
                if not waiting:
                    log.info("waiting for the agent's maps", directory=str(config.bpf_dir))
                waiting = True
            elif supervisor.status()["state"] == "stopped":
                waiting = False
                await supervisor.start()
            elif supervisor.is_outdated():
                log.warning("what Envoy runs with was replaced: it starts anew")
                await supervisor.stop()
                continue
            _tell(config, supervisor)
            await asyncio.sleep(_TELL_SECONDS)
    finally:
        await supervisor.stop()
        _status_file(config).unlink(missing_ok=True)


def _tell(config: AgentConfig, supervisor: Supervisor) -> None:
    """What cannot be said, on a full file system, ends no connection."""
    try:
        replace_file(_status_file(config), json.dumps(supervisor.status()).encode())
    except OSError as error:
        log.error("the status of Envoy cannot be written", error=str(error))


def _pins(config: AgentConfig) -> tuple[Path, ...]:
    return (config.bpf_dir / "ipcache", config.bpf_dir / "ipcache_epoch")


def _status_file(config: AgentConfig) -> Path:
    return config.envoy_dir / "status.json"
