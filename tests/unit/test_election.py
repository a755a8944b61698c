"""One of several leads, however slow the API server is."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping
from typing import Any

from kube_store.election import Election, Terms
from kube_store.kube_client import KubeClient, KubeError
from kube_store.tasks import cancelled
from tests.unit.test_store_both_sources import until

TERMS = Terms(lease=1, renew=0.7, retry=0.1)


class Leases(KubeClient):
    """The way of one candidate to the API server: answers take ``slow`` seconds, and writes do not
    arrive while it is ``cut``. ``lease`` is the server's."""

    lease: dict[str, Any] = {}  # noqa: RUF012 - all candidates'

    def __init__(self) -> None:
        self.slow, self.cut = 0.0, False

    async def request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None,
        content_type: str = "", accept: str = "", seconds: float = 30,
    ) -> tuple[Any, int]:  # fmt: skip
        async with asyncio.timeout(seconds):
            if method != "GET" and self.cut:
                await asyncio.Event().wait()
            if method != "GET":
                self._write(body)
            elif not self.lease:
                raise KubeError(404, "there is none")
            answer = copy.deepcopy(self.lease)
            await asyncio.sleep(self.slow)
            return answer, 0

    def _write(self, body: Any) -> None:
        known = self.lease.get("metadata", {}).get("resourceVersion", "0")
        if body["metadata"].get("resourceVersion", "0") != known:
            raise KubeError(409, "somebody was quicker")
        metadata = body["metadata"] | {"resourceVersion": str(int(known) + 1)}
        self.lease.update(copy.deepcopy(body) | {"metadata": metadata})


class Leaders:
    """Who leads, and the most that ever did at one moment."""

    def __init__(self) -> None:
        Leases.lease.clear()
        self.now: set[str] = set()
        self.most = 0
        self.ways = {name: Leases() for name in "abc"}
        self.tasks = {name: asyncio.create_task(self._run(name)) for name in "abc"}

    async def _run(self, name: str) -> None:
        async def lead() -> None:
            self.now.add(name)
            self.most = max(self.most, len(self.now))
            try:
                await asyncio.Event().wait()
            finally:
                self.now.discard(name)

        await Election(self.ways[name], "default", "l", name, TERMS).run(lead)

    async def other_than(self, name: str) -> str:
        """Who leads then."""
        await until(lambda: bool(self.now - {name}))
        return next(iter(self.now - {name}))

    async def end(self) -> None:
        for task in self.tasks.values():
            await cancelled(task)


async def test_one_leads_and_another_when_it_ends() -> None:
    leaders = Leaders()
    first = await leaders.other_than("")
    await cancelled(leaders.tasks[first])
    await leaders.other_than(first)
    assert leaders.most == 1
    await leaders.end()


async def test_whose_way_to_the_api_server_is_slow_ends_before_another_leads() -> None:
    """Others know of a renewal before the answer to it has come back."""
    leaders = Leaders()
    first = await leaders.other_than("")
    way = leaders.ways[first]
    way.slow = 0.19  # just in time for each request
    await asyncio.sleep(1)
    assert leaders.now == {first}
    way.cut = True
    await leaders.other_than(first)
    assert leaders.most == 1
    await leaders.end()
