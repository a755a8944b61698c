"""Who holds a Lease, and what the others are told, while the API server answers and while not."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest

from kube_store.election import Election, Terms
from kube_store.kube_client import KubeClient, KubeError
from kube_store.tasks import cancelled

TERMS = Terms(lease=1, renew=0.6, retry=0.1)


class Api:
    """Has one Lease. ``away``: it refuses; ``hangs``: it does not answer."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.away = self.hangs = False
        self._version = 0

    async def request(
        self, method: str, _: str, body: Any = None, seconds: float = 0
    ) -> tuple[Any, int]:
        await asyncio.sleep(0)
        if self.away:
            raise TimeoutError
        if self.hangs:
            await asyncio.Event().wait()
        if method == "GET":
            if self.lease is None:
                raise KubeError(404, "no such Lease")
            return copy.deepcopy(self.lease), 0
        known = self.lease and self.lease["metadata"]["resourceVersion"]
        if body["metadata"].get("resourceVersion") != known:
            raise KubeError(409, "somebody was quicker")
        self._version += 1
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(self._version)
        return body, 0


class Candidate:
    """``told``: what it was told, in order, each once in a row."""

    def __init__(self, api: Api, name: str) -> None:
        self.told: list[str] = []
        self.election = Election(cast("KubeClient", api), "ns", "lease", name, TERMS)
        self.task = asyncio.create_task(self.election.run(self._lead, self._follow))

    async def _lead(self) -> None:
        self._tell("lead")
        try:
            await asyncio.Event().wait()
        finally:
            self._tell("lead no more")

    async def _follow(self) -> None:
        self._tell("follow")

    def _tell(self, what: str) -> None:
        if self.told[-1:] != [what]:
            self.told.append(what)


async def until(condition: Callable[[], bool]) -> float:
    """Seconds until it holds."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < 10, "not in time"
        await asyncio.sleep(0.01)
    return time.monotonic() - begin


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
async def two(api: Api) -> AsyncIterator[tuple[Candidate, Candidate]]:
    """The first holds the Lease, and the other knows it."""
    first = Candidate(api, "a")
    await until(lambda: first.told == ["lead"])
    second = Candidate(api, "b")
    await until(lambda: second.told == ["follow"])
    yield first, second
    for each in (first, second):
        await cancelled(each.task)


async def test_a_holder_that_ends_is_followed_at_once(two: tuple[Candidate, Candidate]) -> None:
    first, second = two
    await cancelled(first.task)
    assert first.told == ["lead", "lead no more"]
    assert await until(lambda: second.told == ["follow", "lead"]) < TERMS.lease


async def test_one_that_is_killed_is_followed_when_its_lease_is_over(
    two: tuple[Candidate, Candidate], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = two

    async def nothing() -> None:
        pass

    monkeypatch.setattr(first.election, "_release", nothing)  # as a killed process releases none
    first.task.cancel()
    assert await until(lambda: second.told == ["follow", "lead"]) > TERMS.lease / 2


async def test_a_holder_without_an_answer_leads_no_longer_than_its_term(
    api: Api, two: tuple[Candidate, Candidate]
) -> None:
    first, _ = two
    api.hangs = True
    assert await until(lambda: first.told == ["lead", "lead no more"]) < TERMS.lease


async def test_while_the_api_server_is_away_nobody_is_told_of_another(
    api: Api, two: tuple[Candidate, Candidate]
) -> None:
    first, second = two
    api.away = True
    await until(lambda: first.told == ["lead", "lead no more"])
    await asyncio.sleep(TERMS.lease * 2)
    api.away = False
    await until(lambda: first.told == ["lead", "lead no more", "lead"])
    assert second.told == ["follow"], "the holder has the first turn"


async def test_one_that_comes_back_is_told_that_another_holds_it(
    api: Api, two: tuple[Candidate, Candidate]
) -> None:
    first, second = two
    mine = first.election._client
    gone = Api()
    gone.away = True
    first.election._client = cast("KubeClient", gone)  # cut off, as by its link
    await until(lambda: second.told == ["follow", "lead"])
    assert first.told == ["lead", "lead no more"], "before another can"
    first.election._client = mine
    await until(lambda: first.told == ["lead", "lead no more", "follow"])
