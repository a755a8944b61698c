"""``sidegate agent``: runs until a signal, and leaves enforcement in place."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys

import structlog
import uvloop

from kube_store.logs import configure
from kube_store.tasks import TaskEndedError
from node_agent.agent import Agent, AlreadyRunning
from node_agent.api import application
from node_agent.config import AgentConfig

log = structlog.get_logger(__name__)


def run(config: AgentConfig, log_level: str = "info") -> int:
    """The exit code: 0 after a signal, 1 when it could not start, or a part of it has failed: who
    runs it starts it anew, and it takes over what it left."""
    configure(log_level)
    config.run_dir.mkdir(parents=True, exist_ok=True)
    gc.freeze()  # what was imported stays as long as we do
    try:
        uvloop.run(_until_signal(config))
    except (AlreadyRunning, OSError) as error:
        print(f"sidegate agent: {error}", file=sys.stderr)
        return 1
    except TaskEndedError as error:
        log.critical("a part of the agent has failed: it ends; enforcement stays in place",
                     part=str(error), exc_info=error)  # fmt: skip
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
    agent = Agent(config, application)
    async with agent.running():
        await agent.failed()
