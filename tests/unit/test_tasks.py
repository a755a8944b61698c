"""A task that ends by itself is heard of, whatever ended it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from kube_store.tasks import TaskEndedError, first_failure

Work = Callable[[], Coroutine[Any, Any, None]]


async def returns() -> None:
    """At once."""


async def runs_on() -> None:
    await asyncio.Event().wait()


async def raises() -> None:
    await asyncio.sleep(0)
    raise FileNotFoundError("cgroup")


async def cancels_itself() -> None:
    """As a library's cancellation that leaks does."""
    await asyncio.sleep(0)
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("work", "said"),
    [(raises, "part: FileNotFoundError"), (cancels_itself, "part: cancelled by nobody of ours")],
)
async def test_what_ends_by_itself_is_told(work: Work, said: str) -> None:
    beside = asyncio.create_task(runs_on())
    tasks = [asyncio.create_task(returns()), beside, asyncio.create_task(work(), name="part")]
    with pytest.raises(TaskEndedError, match=said):
        await asyncio.wait_for(first_failure(tasks), 5)
    beside.cancel()


async def test_what_returns_or_runs_on_is_no_failure() -> None:
    tasks = [asyncio.create_task(returns()), asyncio.create_task(runs_on())]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(first_failure(tasks), 0.05)
    assert not tasks[1].done()
    tasks[1].cancel()
