"""Ways past a pod's own proxy, out of the pod and into it: each ends in the kernel. Real kernel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from scapy.all import IP, TCP, Ether, IPv6, Raw

from datapath.consts import DropReason, Enforcer
from policy_engine.model import Direction
from tests.system.datapath_rig import FAMILIES, A, B, Rig, ask, connect, http, reach
from tests.system.lease_rig import Lease, cgroup, own_cgroup, run_in
from tests.system.test_datapath_bypasses import saw, send, sniffer

IN, OUT = Direction.INGRESS, Direction.EGRESS
MAC, GATEWAY = "02:00:00:00:01:0a", "02:00:00:00:02:0a"  # of a, and of its node
NEEDLE = b"GET /past HTTP/1.1"
_NOBODYS = 1 << 40  # 1 is the root's, which these tests may run in
_PACKET = """
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
    raw.bind(("eth0", 0))
    raw.send(bytes.fromhex(sys.argv[1]))
"""
_RAW = """
import socket, sys
family, kind = {"4": (socket.AF_INET, 255), "6": (socket.AF_INET6, 255)}[sys.argv[3]]
with socket.socket(family, socket.SOCK_RAW, kind) as raw:
    raw.sendto(bytes.fromhex(sys.argv[1])[14:], (sys.argv[2], 0))
"""


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """Both pods have a proxy that holds its lease: the test's own process."""
    made = Rig(tmp_path / "bpf")
    made.serve(made.b.netns)
    for endpoint, direction in ((1, OUT), (2, IN)):
        made.datapath.enforcers.set_cgroup(endpoint, own_cgroup())
        made.datapath.enforcers.set(endpoint, {(direction, 0): Enforcer.SIDECAR})
    with Lease(made, 1).kept(), Lease(made, 2).kept():
        yield made
    made.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_what_another_than_the_proxy_answers_gets_no_further(rig: Rig, family: int) -> None:
    """Packet rules that leave out a family, or that somebody in the pod took away; an impostor
    that listens where the proxy did."""
    rig.set(2, ingress=http(A))
    assert reach(rig.a.netns, rig.b, family) == rig.a.address(family)
    with cgroup("proxy") as proxy:
        rig.datapath.enforcers.set_cgroup(2, proxy.stat().st_ino)
        assert reach(rig.a.netns, rig.b, family) == "dropped"
        assert rig.reasons() == {DropReason.NOT_SIDECAR}
        rig.set(2)
        assert reach(rig.a.netns, rig.b, family) == rig.a.address(family), "not selected at L7"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_connection_that_is_older_than_the_policy_goes_on_by_the_proxy_only(
    rig: Rig, family: int
) -> None:
    with connect(rig.a.netns, rig.b.address(family)) as by_proxy:
        rig.datapath.enforcers.set_cgroup(2, _NOBODYS)
        with connect(rig.a.netns, rig.b.address(family)) as past:
            assert ask(by_proxy) == ask(past) == rig.a.address(family)
            rig.set(2, ingress=http(A))
            assert ask(by_proxy) == rig.a.address(family)
            with pytest.raises(TimeoutError):
                ask(past)
    assert rig.reasons() == {DropReason.NOT_SIDECAR}


def test_a_first_packet_that_comes_again_takes_nothing_away(rig: Rig) -> None:
    rig.set(2, ingress=http(A))
    with connect(rig.a.netns, rig.b.address(4)) as connection:
        port = connection.getsockname()[1]
        send(rig.a.netns, _segment(rig, 4, "S", sport=port))
        assert ask(connection) == rig.a.address(4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("program", [_PACKET, _RAW], ids=["packet", "raw"])
@pytest.mark.parametrize(
    ("flags", "source", "reason"),
    [
        ("S", "own", DropReason.NOT_SIDECAR),
        ("PA", "own", DropReason.NOT_SIDECAR),
        ("S", "others", DropReason.INVALID_SOURCE),
    ],
    ids=["own", "into the proxy's connection", "forged"],
)
def test_no_packet_of_another_container_leaves_where_policy_selects_it(
    rig: Rig, family: int, program: str, flags: str, source: str, reason: DropReason
) -> None:
    """CAP_NET_RAW writes whatever it likes; who wrote it stays known."""
    to = rig.b.address(family)
    with (
        cgroup("app") as app,
        sniffer(rig.b.netns) as seen,
        connect(rig.a.netns, to) as connection,
    ):
        assert ask(connection) == rig.a.address(family)
        port = connection.getsockname()[1] if flags == "PA" else 4711
        packet = Ether(src=MAC, dst=GATEWAY) / _segment(rig, family, flags, sport=port)
        if source == "others":
            packet.payload.src = str(rig.node.remote.address(family))

        def arrives() -> bool:
            run_in(app, rig.a.netns, program, bytes(packet).hex(), to, str(family))
            return saw(seen, NEEDLE)

        assert arrives() is (source == "own"), "no policy yet"
        rig.set(1, egress=http(B))
        assert not arrives()
        assert reason in rig.reasons()


def _segment(rig: Rig, family: int, flags: str, sport: int) -> IP | IPv6:
    network = IP if family == 4 else IPv6
    ends = network(src=rig.a.address(family), dst=rig.b.address(family))
    return ends / TCP(sport=sport, dport=8080, flags=flags) / Raw(NEEDLE)
