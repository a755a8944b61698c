"""Statuses that are written to the API server."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from kube_store import status as status_module
from kube_store.back_off import BackOff
from kube_store.kube_client import KubeError
from kube_store.status import StatusTarget, StatusWriter, patch_status
from kube_store.tasks import cancelled
from tests.unit.fake_api_server import FakeApiServer, Fault, cut, fake_api_server, slow, status
from tests.unit.test_store_both_sources import until

ONE = StatusTarget("cilium.io/v2", "ciliumnetworkpolicies", "shop", "one")
WIDE = StatusTarget("cilium.io/v2", "ciliumclusterwidenetworkpolicies", "", "wide")


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeApiServer]:
    monkeypatch.setattr(status_module, "BackOff", functools.partial(BackOff, 0.02, 0.2))
    async with fake_api_server() as made:
        yield made


@pytest.fixture
async def writer(server: FakeApiServer) -> AsyncIterator[StatusWriter]:
    client = server.client()
    made = StatusWriter(client, concurrency=3)
    running = asyncio.create_task(made.run())
    yield made
    await cancelled(running)
    await client.close()


def said(server: FakeApiServer) -> list[Any]:
    return [body["status"]["n"] for _, body in server.bodies]


async def test_a_status_is_a_merge_patch_of_the_subresource(server: FakeApiServer) -> None:
    kinds = []

    async def content_type(request: web.Request) -> None:
        kinds.append(request.content_type)

    server.always = content_type
    client = server.client()
    assert await patch_status(client, ONE, {"n": 1})
    assert await patch_status(client, WIDE, {"n": None})
    assert server.bodies == [
        ("/apis/cilium.io/v2/namespaces/shop/ciliumnetworkpolicies/one/status",
         {"status": {"n": 1}}),
        ("/apis/cilium.io/v2/ciliumclusterwidenetworkpolicies/wide/status",
         {"status": {"n": None}}),
    ]  # fmt: skip
    assert kinds == ["application/merge-patch+json"] * 2
    server.always = status(404)
    assert not await patch_status(client, ONE, {"n": 1})
    server.always = status(403)
    with pytest.raises(KubeError, match="it is 403"):
        await patch_status(client, ONE, {"n": 1})
    await client.close()


async def test_the_last_word_is_written_and_only_once(
    server: FakeApiServer, writer: StatusWriter
) -> None:
    server.faults.append(slow(0.2))
    writer.put(ONE, {"n": 1})
    await until(lambda: len(server.requests) == 1)
    for number in (2, 3, 4):
        writer.put(ONE, {"n": number})
    await until(lambda: said(server) == [1, 4])
    writer.put(ONE, {"n": 4})
    writer.put(WIDE, {"n": 5})
    await until(lambda: said(server)[2:] == [5])


async def test_the_same_word_while_it_is_written_is_not_written_again(
    server: FakeApiServer, writer: StatusWriter
) -> None:
    server.faults.append(slow(0.2))
    writer.put(ONE, {"n": 1})
    await until(lambda: len(server.requests) == 1)
    writer.put(ONE, {"n": 1})
    await until(lambda: said(server) == [1])
    writer.put(WIDE, {"n": 2})
    await until(lambda: said(server) == [1, 2])


@pytest.mark.parametrize(
    "fault",
    [status(409), status(429), status(500), status(403), cut()],
    ids=["409", "429", "500", "403", "cut"],
)
async def test_what_fails_is_written_later_as_it_is_then(
    server: FakeApiServer, writer: StatusWriter, fault: Fault
) -> None:
    server.always = fault
    writer.put(ONE, {"n": 1})
    await until(lambda: len(server.requests) >= 2)
    writer.put(ONE, {"n": 2})
    server.always = None
    await until(lambda: bool(server.bodies) and said(server)[-1] == 2)
    assert set(said(server)) <= {1, 2}


@pytest.mark.parametrize("code", [404, 422])
async def test_what_will_never_do_is_not_written_again(
    server: FakeApiServer, writer: StatusWriter, code: int
) -> None:
    server.faults.append(status(code))
    writer.put(ONE, {"n": 1})
    await until(lambda: not server.faults)
    writer.put(WIDE, {"n": 2})
    await until(lambda: said(server) == [2])
    await asyncio.sleep(0.3)
    assert len(server.requests) == 2
    writer.put(ONE, {"n": 3})
    await until(lambda: said(server) == [2, 3])


async def test_an_object_that_comes_again_is_written_again(
    server: FakeApiServer, writer: StatusWriter
) -> None:
    writer.put(ONE, {"n": 1})
    await until(lambda: said(server) == [1])
    writer.forget(ONE)
    writer.put(ONE, {"n": 1})
    await until(lambda: said(server) == [1, 1])


async def test_so_many_at_once_and_no_more(server: FakeApiServer, writer: StatusWriter) -> None:
    now, most = 0, 0

    async def counted(_: web.Request) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.05)
        now -= 1

    server.always = counted
    for number in range(12):
        writer.put(StatusTarget("v1", "things", "", f"t{number}"), {"n": number})
    await until(lambda: len(server.bodies) == 12)
    assert most == 3
