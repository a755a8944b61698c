"""Addresses that a node holds for Gateways: on its device, and known to its neighbours."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from datapath import announce
from tests.system.netns import inside, ip

pytestmark = pytest.mark.system

HOLDER, CLIENT = (f"sga{os.getpid()}-{name}" for name in ("holder", "client"))
GATEWAY = frozenset(map(ip_address, ("192.0.2.130", "2001:db8::130")))
ELSEWHERE = "02:00:00:00:00:99"
"""Where the client believes them to be, from a holder before."""


@pytest.fixture(autouse=True)
def link() -> Iterator[None]:
    """Between the two, with addresses of their own."""
    for name in (HOLDER, CLIENT):
        ip("netns", "add", name)
    ip("link", "add", "eth0", "netns", HOLDER, "type", "veth", "peer", "eth0", "netns", CLIENT)
    for number, name in enumerate((HOLDER, CLIENT), 1):
        ip("link", "set", "eth0", "up", netns=name)
        ip("addr", "add", f"192.0.2.{number}/24", "dev", "eth0", netns=name)
        ip("addr", "add", f"2001:db8::{number}/64", "dev", "eth0", "nodad", netns=name)
    for address in GATEWAY:
        ip("neigh", "add", str(address), "lladdr", ELSEWHERE, "dev", "eth0", "nud", "stale",
           netns=CLIENT)  # fmt: skip
    yield
    for name in (HOLDER, CLIENT):
        ip("netns", "del", name)


def shown(*what: str, netns: str) -> list[dict[str, Any]]:
    command = ["ip", "-n", netns, "-j", *what]
    done = subprocess.run(command, check=True, capture_output=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def believed() -> set[str | None]:
    """Where the client has the addresses of the Gateway."""
    neighbours = shown("neigh", "show", "dev", "eth0", netns=CLIENT)
    return {n.get("lladdr") for n in neighbours if ip_address(n["dst"]) in GATEWAY}


def test_neighbours_are_told_each_time_and_nothing_is_left() -> None:
    (device,) = shown("link", "show", "dev", "eth0", netns=HOLDER)
    assert believed() == {ELSEWHERE}
    for _ in range(2):
        with inside(HOLDER):
            announce.hold(GATEWAY, ("eth0",))
        deadline = time.monotonic() + 5
        while believed() != {device["address"]} and time.monotonic() < deadline:
            time.sleep(0.05)
        assert believed() == {device["address"]}
        for address in GATEWAY:
            ip("neigh", "replace", str(address), "lladdr", ELSEWHERE, "dev", "eth0", "nud", "stale",
               netns=CLIENT)  # fmt: skip
    with inside(HOLDER):
        announce.release_others(frozenset())
    assert not GATEWAY & own_addresses()


def own_addresses() -> set[Any]:
    (device,) = shown("addr", "show", "dev", "eth0", netns=HOLDER)
    return {ip_address(each["local"]) for each in device["addr_info"]}


def test_hundreds_of_addresses_are_taken_at_once() -> None:
    """A Lease that is over leaves no more of the three seconds in which another takes over."""
    many = frozenset(
        base + n for base in map(ip_address, ("198.51.100.0", "2001:db8::1:0")) for n in range(200)
    )
    with inside(HOLDER):
        began = time.monotonic()
        announce.hold(many, ("eth0",))
        took = time.monotonic() - began
    assert many <= own_addresses()
    assert took < 2
