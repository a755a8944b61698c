"""``sidegate agent``: runs until a signal, and leaves enforcement in place."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

import structlog
import uvloop

from kube_store.logs import configure
from node_agent.agent import Agent, AlreadyRunning
from node_agent.config import AgentConfig

log = structlog.get_logger(__name__)


def run(config: AgentConfig, log_level: str = "info") -> int:
    """The exit code: 0 after a signal, 1 when it could not start."""
    configure(log_level)
    config.run_dir.mkdir(parents=True, exist_ok=True)
    try:
        uvloop.run(_until_signal(config))
    except (AlreadyRunning, OSError) as error:
        print(f"sidegate agent: {error}", file=sys.stderr)
        return 1
    return 0


async def _until_signal(config: AgentConfig) -> None:
    running = asyncio.create_task(_forever(config))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await running
    log.info("agent stopped; enforcement stays in place")


async def _forever(config: AgentConfig) -> None:
    async with Agent(config).running():
        await asyncio.Event().wait()
