"""Addresses of Gateways are on one node, also where it loses the Lease while it takes them."""

from __future__ import annotations

import asyncio
import threading
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any

import pytest

from datapath import announce
from node_agent.address_holder import AddressHolder
from node_agent.config import AgentConfig
from tests.unit.test_cluster_membership import FakeServer

ADDRESS = ip_address("192.0.2.130")


class Kernel:
    """What :mod:`datapath.announce` is asked to do; :meth:`hold` waits for ``go``."""

    def __init__(self) -> None:
        self.held: set[Any] = set()
        self.began, self.go = threading.Event(), threading.Event()

    def hold(self, addresses: Any, _: Any) -> None:
        self.began.set()
        assert self.go.wait(10)
        self.held |= addresses

    def release_others(self, wanted: frozenset[Any]) -> None:
        self.held &= wanted


async def test_a_node_that_loses_the_lease_while_it_takes_addresses_keeps_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernel = Kernel()
    for name in ("hold", "release_others"):
        monkeypatch.setattr(announce, name, getattr(kernel, name))
    gateways: Any = SimpleNamespace(addresses=frozenset({ADDRESS}), readdressed=asyncio.Event())
    holder = AddressHolder(AgentConfig(), FakeServer(), gateways)
    holding = asyncio.create_task(holder._hold())
    assert await asyncio.to_thread(kernel.began.wait, 10)
    holding.cancel()  # as the election does
    with pytest.raises(asyncio.CancelledError):
        await holding
    giving_up = asyncio.create_task(holder._release())  # another has it
    await asyncio.sleep(0.1)
    kernel.go.set()
    await asyncio.wait_for(giving_up, 10)
    assert kernel.held == set()
