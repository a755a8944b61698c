"""The end of a task that somebody started."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from typing import Any, NoReturn


class TaskEndedError(RuntimeError):
    """A task has ended that was to run on; the cause is what it raised, if anything."""


async def cancelled(task: asyncio.Future[Any]) -> None:
    """Cancel it and wait until it has cleaned up. Raises what it raises besides being cancelled."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def stopped(task: asyncio.Task[Any]) -> None:
    """As :func:`cancelled`, of a task whose own end :func:`first_failure` tells of."""
    if not task.done():
        await cancelled(task)


async def first_failure(tasks: Iterable[asyncio.Task[Any]]) -> NoReturn:
    """Until one of them ends in any other way than by returning: nobody awaits what runs beside,
    so it would be missed only where its work is. Raises TaskEndedError."""
    running = set(tasks)
    while running:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if task.cancelled():
                raise TaskEndedError(f"{task.get_name()}: cancelled by nobody of ours")
            if error := task.exception():
                raise TaskEndedError(f"{task.get_name()}: {error!r}") from error
    await asyncio.get_running_loop().create_future()
    raise AssertionError("nobody sets it")
