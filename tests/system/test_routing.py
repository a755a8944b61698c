"""Routes to other nodes' pods: exactly those that are wanted, and none written again."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network

import pytest

from datapath import routing
from tests.system.netns import Node, inside, ip

pytestmark = pytest.mark.system
V4, V6 = ip_network("10.9.7.0/24"), ip_network("fd00:9:7::/48")
RTMGRP_ROUTES = 0x40 | 0x400  # RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_ROUTE of linux/rtnetlink.h


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    try:
        yield made
    finally:
        made.close()


def routes(node: Node) -> list[str]:
    """``prefix via gateway`` of those that are ours."""
    found = []
    for family in ("-4", "-6"):
        done = subprocess.run(
            ["ip", "-n", node.name, family, "route", "show", "proto", str(routing.PROTOCOL)],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        found += [" ".join(line.split()[:3]) for line in done.stdout.splitlines()]
    return found


def test_only_what_differs_is_written(node: Node) -> None:
    v4, v6 = node.remote.ipv4, node.remote.ipv6
    other, moved = ip_network("10.9.8.0/24"), ip_address("2001:db8::a")
    ip("route", "add", str(moved), "dev", "up0", netns=node.name)
    with inside(node.name):
        routing.set_routes({V4: v4, other: v4, V6: v6})
        assert routes(node) == [f"{V4} via {v4}", f"{other} via {v4}", f"{V6} via {v6}"]
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as told:
            told.bind((0, RTMGRP_ROUTES))
            told.setblocking(False)
            routing.set_routes({V4: v4, other: v4, V6: v6})
            with pytest.raises(BlockingIOError):
                told.recv(1)
            routing.set_routes({V4: v4, V6: moved})
            assert told.recv(1)
        assert routes(node) == [f"{V4} via {v4}", f"{V6} via {moved}"]
        routing.set_routes({})
        assert routes(node) == []


def test_the_way_to_envoy_is_no_uplink(node: Node) -> None:
    """An agent that starts again finds its own route; the node's own traffic goes by ``lo``."""
    with inside(node.name):
        ip("route", "replace", "default", "dev", "up0", netns=node.name)
        before = routing.default_devices()
        routing.set_up()
        assert routing.default_devices() == before
        assert before
        assert "lo" not in before
