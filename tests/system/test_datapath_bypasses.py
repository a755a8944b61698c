"""Ways around policy that were found once and must stay closed."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from scapy.all import (
    ICMP,
    IP,
    TCP,
    Ether,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    PadN,
    Raw,
)

from policy_engine.model import DirectionPolicy, PortRule, Protocol
from tests.system.datapath_rig import CLOSED, OPEN, A, B, Rig, allow, ask, connect, http
from tests.system.netns import inside
from tests.system.stand_in import StandIn

pytestmark = [
    pytest.mark.system,
    pytest.mark.parametrize("rig", ["routed", "bridged"], indirect=True),
]

SECRET = b"SECRETSECRET"


def sniffer(netns: str) -> socket.socket:
    with inside(netns):
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    made.bind(("eth0", 0))
    made.settimeout(0.05)
    return made


def saw(listening: socket.socket, needle: bytes, seconds: float = 0.6) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            if needle in listening.recv(4096):
                return True
    return False


def send(netns: str, packet: object) -> None:
    """From the first pod's interface, as its kernel would not."""
    with inside(netns):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with raw:
        raw.bind(("eth0", 0))
        raw.send(bytes(Ether(src="02:00:00:00:01:0a", dst="02:00:00:00:02:0a") / packet))


@pytest.mark.parametrize("egress", ["open", "enforced"])
def test_what_the_server_sends_does_not_revive_a_revoked_connection(rig: Rig, egress: str) -> None:
    reads: list[float] = []
    with inside(rig.b.netns):
        server = socket.create_server(("0.0.0.0", 7070))

    def talk() -> None:
        client, _ = server.accept()
        client.settimeout(0.02)
        end = time.monotonic() + 4
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                client.send(b"t")
            with contextlib.suppress(TimeoutError):
                if not client.recv(1000):
                    return
                reads.append(time.monotonic())
            time.sleep(0.05)

    threading.Thread(target=talk, daemon=True).start()
    to_remote = DirectionPolicy(True, False, (PortRule("t", frozenset({2}), Protocol.TCP),))
    out = OPEN if egress == "open" else to_remote
    rig.set(2, ingress=allow(2, port=7070), egress=out)
    with server, connect(rig.node.remote.netns, rig.b.address(4), 7070, 1) as client:
        client.send(b"x")
        time.sleep(0.2)
        assert reads
        rig.set(2, ingress=CLOSED, egress=out)
        revoked = time.monotonic()
        client.settimeout(0.02)
        while time.monotonic() < revoked + 2:
            with contextlib.suppress(OSError):
                client.send(b"x")
                client.recv(100)
            time.sleep(0.05)
    assert not [read for read in reads if read > revoked + 0.3]


def test_a_revoked_redirect_of_a_host_process_ends(rig: Rig) -> None:
    rig.proxy = StandIn(rig.node.name)
    rig.set(2, ingress=http(1))
    with connect(rig.node.name, rig.b.address(4)) as live:
        assert ask(live).startswith("P")
        rig.set(2, ingress=CLOSED)
        for _ in range(2):
            with pytest.raises(TimeoutError):
                ask(live)


@pytest.mark.parametrize("kind", ["echo", "solicitation"])
def test_neighbour_discovery_does_not_leave_the_link(rig: Rig, kind: str) -> None:
    rig.set(1, egress=CLOSED)
    listening = sniffer(rig.node.remote.netns)
    body = ICMPv6ND_NS(tgt="2001:db8::9") / Raw(SECRET)
    if kind == "echo":
        body = ICMPv6EchoRequest(data=SECRET)
    outer = IPv6(src="2001:db8:dead::1", dst=rig.node.remote.address(6), hlim=255)
    send(rig.a.netns, outer / body)
    assert not saw(listening, SECRET)


@pytest.mark.parametrize("headers", [0, 4, 5])
def test_extension_headers_hide_no_protocol(rig: Rig, headers: int) -> None:
    deny = PortRule("d", frozenset({A}), Protocol.TCP, 8080, deny=True)
    rig.set(2, ingress=DirectionPolicy(True, False, (PortRule("t", frozenset({A})), deny)))
    listening = sniffer(rig.a.netns)
    packet = IPv6(src=rig.a.address(6), dst=rig.b.address(6))
    for _ in range(headers):
        packet = packet / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
    send(rig.a.netns, packet / TCP(sport=55555, dport=8080, flags="S", seq=1))
    answer = bytes.fromhex("1f90d903")  # port 8080 to port 55555
    assert not saw(listening, answer), "b took the SYN"


@pytest.mark.parametrize("port", [1, 8080])
def test_an_icmp_error_goes_only_to_whom_it_concerns(rig: Rig, port: int) -> None:
    rig.set(1, egress=allow(B))
    with connect(rig.a.netns, rig.b.address(4)) as live:
        ask(live)
        own, remote = rig.a.address(4), rig.node.remote.address(4)
        listening = sniffer(rig.node.remote.netns)
        quoted = IP(src=own, dst=rig.b.address(4)) / TCP(sport=live.getsockname()[1], dport=port)
        send(rig.a.netns, IP(src=own, dst=remote) / ICMP(type=3, code=1) / quoted / Raw(SECRET))
        assert not saw(listening, SECRET)


def test_a_udp_server_does_not_answer_after_revocation(rig: Rig) -> None:
    with inside(rig.b.netns):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with inside(rig.a.netns):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server, client:
        server.bind(("0.0.0.0", 5353))
        server.settimeout(0.3)
        client.settimeout(0.3)
        rule = PortRule("t", frozenset({A}), Protocol.UDP, 5353)
        rig.set(2, ingress=DirectionPolicy(True, False, (rule,)), egress=CLOSED)
        client.sendto(b"q", (rig.b.address(4), 5353))
        _, peer = server.recvfrom(10)
        rig.set(2, ingress=CLOSED, egress=CLOSED)
        client.sendto(b"q", (rig.b.address(4), 5353))
        with pytest.raises(TimeoutError):
            server.recvfrom(10)
        server.sendto(b"leak", peer)
        with pytest.raises(TimeoutError):
            client.recv(10)
