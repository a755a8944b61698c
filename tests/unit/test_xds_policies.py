"""Policies to the modules: what is told, what is acknowledged, what is still open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from policy_engine.model import (
    DirectionPolicy,
    EndpointPolicy,
    HeaderMatch,
    HttpRule,
    KafkaRule,
    Parser,
    PortRule,
    Protocol,
)
from sidegate_api.policy.v1 import policy_pb2 as pb
from xds_server.policy_proto import endpoint_policy
from xds_server.policy_stream import PolicyHub, PolicySession, Sidecar
from xds_server.policy_versions import PROTOCOL_VERSION

HELLO = pb.Hello(node="n", protocol_version=PROTOCOL_VERSION)


def policy(endpoint_id: int, revision: int = 1) -> pb.EndpointPolicy:
    return pb.EndpointPolicy(endpoint_id=endpoint_id, revision=revision)


def told(session: PolicySession) -> tuple[int, bool, list[tuple[int, int]], list[int]] | None:
    response = session.response()
    if response is None:
        return None
    upserts = [(p.endpoint_id, p.revision) for p in response.upserts]
    return response.nonce, response.full, upserts, list(response.removed_endpoint_ids)


def test_a_full_set_then_only_what_changed() -> None:
    hub = PolicyHub()
    hub.publish(policy(1))
    hub.publish(policy(2))
    session = hub.connect(HELLO, lambda: None)
    assert told(session) == (1, True, [(1, 1), (2, 1)], [])
    assert told(session) is None
    hub.publish(policy(2, 2))
    hub.publish(policy(2, 3))
    hub.remove(1)
    hub.remove(77)
    assert told(session) == (2, False, [(2, 3)], [1])
    assert told(session) is None


def test_a_module_is_woken_by_each_change() -> None:
    hub, woken = PolicyHub(), []
    hub.connect(HELLO, lambda: woken.append(True))
    hub.publish(policy(1))
    hub.remove(1)
    assert len(woken) == 2


def test_an_empty_first_set_is_sent_too() -> None:
    assert told(PolicyHub().connect(HELLO, lambda: None)) == (1, True, [], [])


@pytest.mark.parametrize("nonce", [0, 1, 3])
def test_an_acknowledgement_of_nothing_is_an_error(nonce: int) -> None:
    session = PolicyHub().connect(HELLO, lambda: None)
    session.response()
    session.acknowledge(pb.Ack(nonce=1))
    with pytest.raises(ValueError, match=f"Ack.nonce {nonce}"):
        session.acknowledge(pb.Ack(nonce=nonce))


async def test_acknowledged_means_by_every_module() -> None:
    hub = PolicyHub()
    assert await hub.acknowledged(1, 1, 0), "nobody can enforce an old version"
    hub.publish(policy(1, 5))
    first, second = (hub.connect(HELLO, lambda: None) for _ in range(2))
    first.response()
    second.response()
    first.acknowledge(pb.Ack(nonce=1))
    assert not await hub.acknowledged(1, 5, 0.01)

    waiting = asyncio.create_task(hub.acknowledged(1, 5, 5))
    await asyncio.sleep(0)
    second.acknowledge(pb.Ack(nonce=1))
    hub.progress(second)
    assert await waiting
    assert await hub.acknowledged(1, 4, 0.01), "a later revision is in force"
    assert not await hub.acknowledged(1, 6, 0.01)


async def test_a_module_that_leaves_is_not_waited_for() -> None:
    hub = PolicyHub()
    session = hub.connect(HELLO, lambda: None)
    waiting = asyncio.create_task(hub.acknowledged(1, 1, 5))
    await asyncio.sleep(0)
    hub.disconnect(session)
    assert await waiting


async def test_a_refused_policy_is_not_acknowledged_until_it_is_mended() -> None:
    hub = PolicyHub()
    hub.publish(policy(1, 1))
    hub.publish(policy(2, 1))
    session = hub.connect(HELLO, lambda: None)
    session.response()
    error = pb.EndpointError(endpoint_id=1, revision=1, rule="r", message="bad regex")
    session.acknowledge(pb.Ack(nonce=1, errors=[error]))
    assert not await hub.acknowledged(1, 1, 0.01)
    assert await hub.acknowledged(2, 1, 0.01)
    assert session.errors == {1: error}
    hub.publish(policy(1, 2))
    session.response()
    session.acknowledge(pb.Ack(nonce=2))
    assert await hub.acknowledged(1, 2, 0.01)
    assert session.errors == {}


async def test_ready_is_about_the_module_of_that_node() -> None:
    hub = PolicyHub()
    session = hub.connect(HELLO, lambda: None)
    session.response()
    assert not await hub.ready("n", 0.01)
    session.acknowledge(pb.Ack(nonce=1))
    assert await hub.ready("n", 0.01)
    assert not await hub.ready("other", 0.01)


RULES = {
    "any peer, every port": (PortRule("r", None), pb.PortRule(rule="r", any_peer=True)),
    "no peer": (PortRule("r", frozenset()), pb.PortRule(rule="r")),
    "peers sorted, range, deny": (
        PortRule("r", frozenset({9, 300, 2}), Protocol.TCP, 80, 90, deny=True),
        pb.PortRule(rule="r", peers=[2, 9, 300], port=80, end_port=90, deny=True),
    ),
    "HTTP": (
        PortRule(
            "r",
            None,
            parser=Parser.HTTP,
            http=(HttpRule("GET", "/a", "h", (HeaderMatch("x"), HeaderMatch("y", ""))),),
        ),
        pb.PortRule(
            rule="r",
            any_peer=True,
            http=pb.HttpRules(
                rules=[
                    pb.HttpRule(
                        method="GET",
                        path="/a",
                        host="h",
                        headers=[
                            pb.HeaderMatch(name="x"),
                            pb.HeaderMatch(name="y", has_value=True),
                        ],
                    )
                ]
            ),
        ),
    ),
    "HTTP without rules is still HTTP": (
        PortRule("r", None, parser=Parser.HTTP),
        pb.PortRule(rule="r", any_peer=True, http=pb.HttpRules()),
    ),
    "Kafka": (
        PortRule(
            "r",
            None,
            parser=Parser.KAFKA,
            kafka=(KafkaRule(frozenset({3, 0}), 0, "c", "t"), KafkaRule()),
        ),
        pb.PortRule(
            rule="r",
            any_peer=True,
            kafka=pb.KafkaRules(
                rules=[
                    pb.KafkaRule(api_keys=[0, 3], api_version=0, client_id="c", topic="t"),
                    pb.KafkaRule(),
                ]
            ),
        ),
    ),
}


@pytest.mark.parametrize(("rule", "expected"), RULES.values(), ids=RULES)
def test_rules_as_the_module_reads_them(rule: PortRule, expected: pb.PortRule) -> None:
    direction = DirectionPolicy(enforced=True, audit=True, rules=(rule,))
    made = endpoint_policy(EndpointPolicy(7, 256, DirectionPolicy(), direction, {}, revision=4))
    assert made == pb.EndpointPolicy(
        endpoint_id=7,
        identity=256,
        revision=4,
        ingress=pb.DirectionPolicy(),
        egress=pb.DirectionPolicy(enforced=True, audit=True, rules=[expected]),
    )


@pytest.mark.parametrize("protocol", Protocol)
def test_the_module_hears_of_tcp_alone(protocol: Protocol) -> None:
    direction = DirectionPolicy(enforced=True, rules=(PortRule("r", None, protocol, 53),))
    made = endpoint_policy(EndpointPolicy(7, 256, direction, DirectionPolicy(), {}))
    assert bool(made.ingress.rules) == (protocol in (Protocol.ANY, Protocol.TCP))


def _sidecar(endpoint_id: int, owners: dict[bytes, int] | None = None) -> Sidecar:
    known = owners or {}
    return Sidecar(endpoint_id, lambda a: pb.Peer(address=a, identity=known.get(a, 2)))


def test_a_sidecar_is_told_of_its_own_endpoint_only_and_not_before_it_has_a_policy() -> None:
    hub = PolicyHub()
    hub.publish(policy(1))
    session = hub.connect(HELLO, lambda: None, _sidecar(2))
    assert told(session) is None
    hub.publish(policy(3))
    assert told(session) is None
    hub.publish(policy(2, 7))
    assert told(session) == (1, True, [(2, 7)], [])
    hub.publish(policy(1, 2))
    assert told(session) is None
    hub.remove(2)
    assert told(session) == (2, False, [], [2])


def test_a_sidecar_hears_of_the_peers_it_has_met_and_whenever_one_has_another_owner() -> None:
    a, b = bytes(15) + b"\1", bytes(15) + b"\2"
    owners = {a: 300}
    hub = PolicyHub()
    hub.publish(policy(2))
    session = hub.connect(HELLO, lambda: None, _sidecar(2, owners))
    stranger = hub.connect(HELLO, lambda: None, _sidecar(3))
    session.response()
    hub.meet(session, [a])
    response = session.response()
    assert response
    assert [(p.address, p.identity) for p in response.peers] == [(a, 300)]
    owners[a] = 400
    hub.readdress(a)
    hub.readdress(b)
    response = session.response()
    assert response
    assert [p.identity for p in response.peers] == [400]
    assert told(session) is None
    assert told(stranger) is None
    hub.disconnect(session)
    hub.readdress_all()
    assert told(session) is None


@pytest.mark.parametrize("address", [b"", b"1234", bytes(17)])
def test_a_peer_is_asked_for_by_sixteen_bytes(address: bytes) -> None:
    hub = PolicyHub()
    session = hub.connect(HELLO, lambda: None, _sidecar(2))
    with pytest.raises(ValueError, match="16 bytes"):
        hub.meet(session, [address])


def test_the_nodes_module_asks_for_no_peers() -> None:
    hub = PolicyHub()
    session = hub.connect(HELLO, lambda: None)
    with pytest.raises(ValueError, match="sidecar"):
        hub.meet(session, [bytes(16)])


async def test_a_change_waits_for_the_sidecar_that_it_is_about() -> None:
    hub = PolicyHub()
    hub.publish(policy(1))
    hub.publish(policy(2))
    session = hub.connect(HELLO, lambda: None, _sidecar(2))
    session.response()
    assert await hub.acknowledged(1, 1, 0.01), "of another pod"
    assert not await hub.acknowledged(2, 1, 0.01)
    session.acknowledge(pb.Ack(nonce=1))
    assert await hub.acknowledged(2, 1, 0.01)


async def test_an_acknowledgement_is_looked_at_by_who_waits_for_it() -> None:
    """Of many sidecars, each looks when it is told and when it has answered: not at all answers."""

    class Counted(PolicyHub):
        looks = 0

        def concerned(self, endpoint_id: int) -> Iterator[PolicySession]:
            self.looks += 1
            return super().concerned(endpoint_id)

    hub, many = Counted(), range(1, 51)
    sessions = [hub.connect(HELLO, lambda: None, _sidecar(number)) for number in many]
    for number in many:
        hub.publish(policy(number))
    waiting = [asyncio.create_task(hub.acknowledged(number, 1, 5)) for number in many]
    for session in sessions:
        session.response()
        await asyncio.sleep(0)
        session.acknowledge(pb.Ack(nonce=1))
        hub.progress(session)
        await asyncio.sleep(0)
    assert all(await asyncio.gather(*waiting))
    assert hub.looks <= 3 * len(many)
