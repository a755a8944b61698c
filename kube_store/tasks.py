"""The end of a task that somebody started."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any


async def cancelled(task: asyncio.Future[Any]) -> None:
    """Cancel it and wait until it has cleaned up. Raises what it raises besides being cancelled."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
