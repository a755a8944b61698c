"""What leaves the cluster has the node's address, what stays inside keeps the pod's."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from datapath import masquerade, routing
from datapath.consts import MARK_FROM_PROXY, MARK_UPSTREAM
from tests.system.netns import Node, Pod, inside, ip

pytestmark = pytest.mark.system
CLUSTER = [ip_network("10.9.0.0/16"), ip_network("10.9.7.0/24"), ip_network("fd00:9::/32")]
OTHER_NODE = {4: "10.9.7.7", 6: "fd00:9:7::7"}
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
NODE_ADDRESS = {4: "192.0.2.1", 6: "2001:db8::1"}


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    try:
        # The uplink has the node's address, as masquerade takes it; the peer has a pod's besides.
        for family, bits in ((4, 32), (6, 128)):
            extra = ["nodad"] if family == 6 else []
            own, other = f"{NODE_ADDRESS[family]}/{bits}", f"{OTHER_NODE[family]}/{bits}"
            ip("addr", "add", own, "dev", "up0", *extra, netns=made.name)
            ip("addr", "add", other, "dev", "eth0", *extra, netns=made.remote.netns)
            via = made.remote.address(family)
            ip("route", "add", other, "via", via, "dev", "up0", "onlink", netns=made.name)
        with inside(made.name):
            routing.set_up()
            masquerade.set_up(CLUSTER, ["up0"])
        yield made
    finally:
        made.close()


def peer_seen(source: str, bound: str, remote: Pod, server: str, family: int, mark: int = 0) -> str:
    """The address that the server sees; both ways must work for it to be told."""
    with inside(remote.netns):
        listener = socket.create_server((server, 0), family=FAMILIES[family])
    with inside(source):
        client = socket.socket(FAMILIES[family])
    with listener, client:
        listener.settimeout(3)
        client.settimeout(3)
        if mark:  # as Envoy: an address that is not the node's own
            level, option = (socket.SOL_IP, 19) if family == 4 else (socket.IPPROTO_IPV6, 75)
            client.setsockopt(level, option, 1)  # IP_TRANSPARENT, IPV6_TRANSPARENT
            client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
        client.bind((bound, 0))
        client.connect(listener.getsockname())
        accepted, address = listener.accept()
        with accepted:
            accepted.sendall(b"answer")
            assert client.recv(6) == b"answer"
        return str(address[0])


@pytest.mark.parametrize("family", [4, 6])
def test_addresses(node: Node, family: int) -> None:
    pod = node.add_pod()
    own, outside = pod.address(family), node.remote.address(family)
    assert peer_seen(pod.netns, own, node.remote, outside, family) == NODE_ADDRESS[family]
    assert peer_seen(pod.netns, own, node.remote, OTHER_NODE[family], family) == own
    mark = MARK_FROM_PROXY | MARK_UPSTREAM
    assert peer_seen(node.name, own, node.remote, outside, family, mark) == NODE_ADDRESS[family]


def test_again_and_gone(node: Node) -> None:
    def tables() -> str:
        return subprocess.run(
            ["nft", "list", "ruleset"], check=True, capture_output=True, text=True
        ).stdout

    with inside(node.name):
        before = tables()
        masquerade.set_up(CLUSTER, ["up0"])
        assert tables() == before
        assert before.count("masquerade") == 2
        for _ in range(2):
            masquerade.tear_down()
            assert tables() == ""
    pod = node.add_pod()
    seen = peer_seen(pod.netns, str(pod.ipv4), node.remote, str(node.remote.ipv4), 4)
    assert seen == str(pod.ipv4)
