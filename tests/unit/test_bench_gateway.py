"""The benchmark of Gateways: what counts as served and as written, and what is compared."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from typing import cast

import pytest

from bench.gateway import asking
from bench.gateway.asking import Client
from bench.gateway.manifests import route
from bench.gateway.objects import Statuses
from bench.gateway.routes import Seen, shares
from kube_store.kube_client import KubeClient


class Gateway:
    """Serves the hosts that it was told, and ends a connection when it is told to."""

    def __init__(self) -> None:
        self.hosts: set[str] = set()
        self.asked = 0
        self.cut = False

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while not self.cut:
                head = await reader.readuntil(b"\r\n\r\n")
                self.asked += 1
                host = head.partition(b"host: ")[2].split(b"\r\n")[0].decode()
                status = b"200 OK" if host in self.hosts else b"404 Not Found"
                writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nok")
        self.cut = False
        writer.close()


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Gateway, Client]]:
    monkeypatch.setattr(asking, "inside", lambda _: contextlib.nullcontext())
    gateway = Gateway()
    server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0)
    client = Client("", "127.0.0.1", server.sockets[0].getsockname()[1])
    yield gateway, client
    client.close()
    server.close()


async def test_a_connection_that_was_ended_is_opened_again(served: tuple[Gateway, Client]) -> None:
    gateway, client = served
    gateway.hosts = {"a"}
    await client.until_served("a")
    gateway.cut = True
    await asyncio.wait_for(client.until_served("a"), 2)


async def test_all_are_served_when_the_last_is(served: tuple[Gateway, Client]) -> None:
    gateway, client = served
    names = [f"h{number}" for number in range(100)]
    gateway.hosts = set(names[:-1])
    waiting = asyncio.create_task(client.until_all_served(deque(names), lambda: True))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    gateway.hosts.add(names[-1])
    await asyncio.wait_for(waiting, 2)


def test_a_status_counts_that_is_of_the_newest_form_and_of_the_controller() -> None:
    seen = Statuses(cast(KubeClient, None), "ours")
    written = route(1)
    written["metadata"]["generation"] = 2
    for controller, generation, counts in (("theirs", 2, False), ("ours", 1, False),
                                           ("ours", 2, True)):  # fmt: skip
        condition = {"type": "Accepted", "observedGeneration": generation}
        parent = {"controllerName": controller, "conditions": [condition]}
        written["status"] = {"parents": [parent]}
        seen.take(written)
        assert ("r1" in seen.written) is counts


def test_ours_is_compared_with_the_better_peer() -> None:
    ours, good, bad = (Seen(cpu=values) for values in ([1.0, 2.0, 3.0], [4.0], [9.0]))
    *figures, share = shares("CPU", "cpu", "s", ours, {"bad": bad, "good": good}, "<= 1")
    assert [each.name for each in figures] == ["CPU", "CPU, bad", "CPU, good"]
    assert (share.value, share.against, share.met) == (0.5, "good", True)
