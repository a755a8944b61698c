"""The datapath on the real kernel: who reaches whom, which way, and what happens in faults."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from ipaddress import ip_network

import pytest

from datapath.codec import Endpoint
from datapath.consts import DropReason, Verdict
from policy_engine.model import Direction, DirectionPolicy, Parser, PortRule, Protocol
from tests.system.datapath_rig import (
    CLOSED,
    FAMILIES,
    OPEN,
    A,
    B,
    Rig,
    allow,
    ask,
    asked,
    connect,
    http,
    reach,
)
from tests.system.netns import inside, ip
from tests.system.stand_in import StandIn

pytestmark = pytest.mark.system
ON_BOTH_LINKS = pytest.mark.parametrize("rig", ["routed", "bridged"], indirect=True)

ANYONE = PortRule("any", None, Protocol.TCP, 8080, parser=Parser.KAFKA)
TWO_PROTOCOLS = DirectionPolicy(True, False, (*http(A).rules, ANYONE))


@ON_BOTH_LINKS
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("case", "ingress", "egress", "seen"),
    [
        ("no policy allows", OPEN, OPEN, "direct"),
        ("default deny of the server", CLOSED, OPEN, "dropped"),
        ("default deny of the client", OPEN, CLOSED, "dropped"),
        ("ingress allows this identity", allow(A), OPEN, "direct"),
        ("ingress allows another identity", allow(B), OPEN, "dropped"),
        ("ingress allows another port", allow(A, port=81), OPEN, "dropped"),
        ("any port", allow(A, port=0), OPEN, "direct"),
        ("egress allows the server", OPEN, allow(B), "direct"),
        ("audit passes what would be denied", allow(B, audit=True), OPEN, "direct"),
        ("ingress selects L7", http(A), OPEN, "proxied"),
        ("egress selects L7", OPEN, http(B), "proxied"),
        ("both select L7", http(A), http(B), "proxied"),
        ("different protocols at both ends", http(A), allow(B, parser=Parser.KAFKA), "dropped"),
        ("L7 for another peer", http(B), OPEN, "dropped"),
        ("different protocols on keys that overlap", TWO_PROTOCOLS, OPEN, "dropped"),
    ],
)
def test_pod_to_pod(
    rig: Rig, case: str, ingress: DirectionPolicy, egress: DirectionPolicy, seen: str, family: int
) -> None:
    rig.proxy = StandIn(rig.node.name)
    rig.set(1, egress=egress)
    rig.set(2, ingress=ingress)
    source = rig.a.address(family)
    wanted = {"direct": source, "proxied": "P" + source}.get(seen, seen)
    assert reach(rig.a.netns, rig.b, family) == wanted, case


@ON_BOTH_LINKS
@pytest.mark.parametrize(
    ("ingress", "egress", "endpoint", "direction"),
    [
        (http(A), OPEN, 2, Direction.INGRESS),
        (OPEN, http(B), 1, Direction.EGRESS),
        (http(A), http(B), 1, Direction.EGRESS),
    ],
)
def test_the_end_that_asks_for_a_redirect_is_named(
    rig: Rig, ingress: DirectionPolicy, egress: DirectionPolicy, endpoint: int, direction: Direction
) -> None:
    rig.proxy = StandIn(rig.node.name)
    rig.set(1, egress=egress)
    rig.set(2, ingress=ingress)
    list(rig.datapath.read_events())
    assert reach(rig.a.netns, rig.b).startswith("P")
    (event,) = [e for e in rig.datapath.read_events() if e.verdict is Verdict.REDIRECTED]
    assert (event.endpoint_id, event.direction) == (endpoint, direction)
    assert (event.source_identity, event.destination_identity) == (A, B)


@ON_BOTH_LINKS
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", [http, allow])
def test_peer_beyond_a_router_to_a_pod(rig: Rig, family: int, policy: object) -> None:
    assert callable(policy)
    rig.proxy = StandIn(rig.node.name)
    rig.set(2, ingress=policy(2))
    mark = "P" if policy is http else ""
    remote = rig.node.remote
    assert reach(remote.netns, rig.b, family) == mark + remote.address(family)
    rig.set(2, ingress=policy(A))
    assert reach(remote.netns, rig.b, family) == "dropped"


@ON_BOTH_LINKS
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", [http, allow])
def test_pod_to_a_peer_beyond_a_router(rig: Rig, family: int, policy: object) -> None:
    assert callable(policy)
    rig.proxy = StandIn(rig.node.name)
    rig.serve(rig.node.remote.netns)
    rig.set(1, egress=policy(2))
    mark = "P" if policy is http else ""
    assert reach(rig.a.netns, rig.node.remote, family) == mark + rig.a.address(family)
    rig.set(1, egress=policy(B))
    assert reach(rig.a.netns, rig.node.remote, family) == "dropped"


@ON_BOTH_LINKS
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", [http, allow])
def test_process_of_the_host_to_a_pod(rig: Rig, family: int, policy: object) -> None:
    assert callable(policy)
    rig.proxy = StandIn(rig.node.name)
    rig.set(2, ingress=policy(1))
    seen = reach(rig.node.name, rig.b, family)
    assert seen.startswith("P") == (policy is http)
    assert seen not in ("dropped", "reset")
    rig.set(2, ingress=policy(A))
    assert reach(rig.node.name, rig.b, family) == "dropped"


@ON_BOTH_LINKS
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("policy", [http, allow])
def test_pod_to_a_process_of_the_host(rig: Rig, family: int, policy: object) -> None:
    assert callable(policy)
    rig.proxy = StandIn(rig.node.name)
    rig.serve(rig.node.name, 8080)  # a wildcard listener on the very port: not to be taken for ours
    address = "10.9.0.1" if family == 4 else "fd00:9::1"
    rig.set(1, egress=policy(1))
    mark = "P" if policy is http else ""
    assert reach(rig.a.netns, address) == mark + rig.a.address(family)
    rig.set(1, egress=policy(B))
    assert reach(rig.a.netns, address) == "dropped"


def test_a_revoked_policy_stops_a_live_connection(rig: Rig) -> None:
    rig.set(2, ingress=allow(A))
    with connect(rig.a.netns, rig.b.address(4)) as live:
        assert ask(live) == rig.a.address(4)
        rig.set(2, ingress=CLOSED)
        with pytest.raises(TimeoutError):
            ask(live)


def test_a_live_connection_survives_a_new_agent(rig: Rig) -> None:
    rig.set(2, ingress=allow(A))
    with connect(rig.a.netns, rig.b.address(4)) as live:
        rig.datapath = rig.start()
        assert ask(live) == rig.a.address(4)
    assert rig.set(2, ingress=allow(A)) == 0, "the new agent knows what the kernel holds"
    assert reach(rig.b.netns, rig.a) == "reset", "nothing listens there, and nothing dropped it"


@ON_BOTH_LINKS
def test_a_connection_older_than_its_policy_is_reset(rig: Rig) -> None:
    rig.proxy = StandIn(rig.node.name)
    with connect(rig.a.netns, rig.b.address(4)) as live:
        assert ask(live) == rig.a.address(4)
        rig.set(2, ingress=http(A))
        live.sendall(b"x")  # answered with a reset
        time.sleep(0.1)
        with pytest.raises(ConnectionError):
            ask(live)


@ON_BOTH_LINKS
@pytest.mark.parametrize("remote", [False, True])
def test_a_redirected_connection_outlives_its_last_l7_rule(rig: Rig, remote: bool) -> None:
    """And ends where nothing allows it any more, though the kernel could find Envoy's socket."""
    rig.proxy = StandIn(rig.node.name)
    client, identity = (rig.node.remote, 2) if remote else (rig.a, A)
    rig.set(2, ingress=http(identity))
    with connect(client.netns, rig.b.address(4)) as live:
        assert ask(live) == "P" + client.address(4)
        rig.set(2, ingress=allow(identity))
        assert ask(live) == "P" + client.address(4)
        assert reach(client.netns, rig.b) == client.address(4)
        rig.set(2, ingress=CLOSED)
        with pytest.raises(TimeoutError):
            ask(live)


def test_without_a_proxy_selected_traffic_is_dropped_and_the_rest_is_not(rig: Rig) -> None:
    rig.serve(rig.b.netns, 9090)
    rules = (*http(A).rules, *allow(A, port=9090).rules)
    rig.set(2, ingress=DirectionPolicy(True, False, rules))
    list(rig.datapath.read_events())
    assert reach(rig.a.netns, rig.b) == "dropped"
    assert rig.reasons() == {DropReason.PROXY_DOWN}
    assert reach(rig.a.netns, rig.b, port=9090) == rig.a.address(4)


def test_a_new_endpoint_is_closed_until_its_first_policy(rig: Rig) -> None:
    pod = rig.node.add_pod()
    with inside(rig.node.name):
        rig.datapath.attach_endpoint(Endpoint(3, 302, pod.ifindex, pod.ipv4, pod.ipv6))
    assert reach(pod.netns, rig.b) == "dropped"


def test_another_pods_address_is_dropped_at_the_source(rig: Rig) -> None:
    rig.set(2, ingress=allow(302))
    forged = "10.9.0.77"
    rig.datapath.upsert_ipcache(ip_network(forged), 302)
    ip("addr", "add", f"{forged}/32", "dev", "eth0", netns=rig.a.netns)
    list(rig.datapath.read_events())
    with inside(rig.a.netns):
        client = socket.socket()
    with client:
        client.settimeout(0.3)
        client.bind((forged, 0))
        with pytest.raises(TimeoutError):
            client.connect((rig.b.address(4), 8080))
    assert rig.reasons() == {DropReason.INVALID_SOURCE}


def test_a_mark_that_a_pod_sets_is_not_ours(rig: Rig) -> None:
    rig.set(2, ingress=CLOSED)
    with inside(rig.a.netns):
        client = socket.socket()
    with client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0xA00)
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect((rig.b.address(4), 8080))


def test_a_vlan_tag_is_no_way_around(rig: Rig) -> None:
    list(rig.datapath.read_events())
    with inside(rig.a.netns):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    ends = bytes.fromhex("02000000020a" + "02000000010a")
    with raw:
        raw.bind(("eth0", 0))
        raw.send(ends + bytes.fromhex("8100" + "0007" + "0800") + bytes(60))
    time.sleep(0.05)
    assert rig.reasons() == {DropReason.NOT_IP}


@ON_BOTH_LINKS
@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams_are_judged_and_their_replies_pass(rig: Rig, family: int) -> None:
    rig.serve(rig.b.netns, 5353, socket.SOCK_DGRAM)
    rule = PortRule("t", frozenset({A}), Protocol.UDP, 5353)

    rig.set(1, ingress=CLOSED)
    rig.set(2, ingress=DirectionPolicy(True, False, (rule,)))
    assert asked(rig, family, b"ping")
    rig.set(2, ingress=CLOSED)
    assert not asked(rig, family, b"ping")


@pytest.mark.parametrize("family", FAMILIES)
def test_fragments_follow_their_first_one(rig: Rig, family: int) -> None:
    rig.serve(rig.b.netns, 5353, socket.SOCK_DGRAM)
    rule = PortRule("t", frozenset({A}), Protocol.UDP, 5353)
    rig.set(2, ingress=DirectionPolicy(True, False, (rule,)))
    assert asked(rig, family, bytes(4000))
    rig.set(2, ingress=DirectionPolicy(True, False, (replace(rule, port=5354),)))
    assert not asked(rig, family, bytes(4000))


def ranged(first: int, last: int, deny: bool = False) -> PortRule:
    return PortRule("t", frozenset({A}), Protocol.TCP, first, last, deny)


BOTH_ON_8080 = tuple(replace(ranged(8080, 0), parser=parser) for parser in Parser)


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        (DirectionPolicy(True, False, (ranged(8080, 8081),)), [True, True, False]),
        (DirectionPolicy(True, False, (ranged(8000, 9000),)), [True, True, True]),
        (DirectionPolicy(True, False, (ranged(1, 65535), ranged(8081, 8090, True))),
         [True, False, False]),
        (DirectionPolicy(True, False, (ranged(8081, 8081, True),), True), [True, False, True]),
        (DirectionPolicy(True, False, (), True), [True, True, True]),
        (DirectionPolicy(True, False, (ranged(1, 8079), ranged(8083, 65535))), [False] * 3),
        (DirectionPolicy(True, False, (*BOTH_ON_8080, ranged(8081, 8082))), [False, True, True]),
        (DirectionPolicy(True, False, (*BOTH_ON_8080, ranged(8000, 9000))), [True, True, True]),
        (DirectionPolicy(True, False, BOTH_ON_8080, True), [False, True, True]),
    ],
)  # fmt: skip
def test_ranges_and_default_allow(rig: Rig, policy: DirectionPolicy, allowed: list[bool]) -> None:
    for port in (8081, 8082):
        rig.serve(rig.b.netns, port)
    rig.set(2, ingress=policy)
    for port, expected in zip((8080, 8081, 8082), allowed, strict=True):
        for family in FAMILIES:
            answer = rig.a.address(family) if expected else "dropped"
            assert reach(rig.a.netns, rig.b, family, port) == answer, port
    rig.set(2, ingress=CLOSED)
    assert reach(rig.a.netns, rig.b) == "dropped"


def test_events_name_both_identities_and_the_endpoint(rig: Rig) -> None:
    rig.set(2, ingress=allow(A))
    list(rig.datapath.read_events())
    assert reach(rig.a.netns, rig.b) == rig.a.address(4)
    time.sleep(0.05)
    events = [e for e in rig.datapath.read_events() if e.dport == 8080]
    seen = {(e.direction.name, e.verdict, e.source_identity, e.destination_identity, e.endpoint_id)
            for e in events}  # fmt: skip
    assert seen == {
        ("EGRESS", Verdict.FORWARDED, A, B, 1),
        ("INGRESS", Verdict.FORWARDED, A, B, 2),
    }


def test_a_change_writes_what_changed_only(rig: Rig) -> None:
    many = tuple(PortRule("t", frozenset({A}), Protocol.TCP, p) for p in range(1, 500))
    rig.set(2, ingress=DirectionPolicy(True, False, many))
    assert rig.set(2, ingress=DirectionPolicy(True, False, (*many, *allow(A).rules))) == 1
    assert rig.set(2, ingress=DirectionPolicy(True, False, many)) == 1
