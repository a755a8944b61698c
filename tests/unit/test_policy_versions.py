"""Modules of earlier releases: who is served, and that none reads a policy as wider than it is."""

from __future__ import annotations

import importlib.metadata
import re
from pathlib import Path

import pytest

from l7_proxy_ext import _rules
from policy_engine.model import Authentication
from sidegate_api.policy.v1 import policy_pb2 as pb
from xds_server.policy_stream import PolicyHub
from xds_server.policy_versions import OLDEST_VERSION, PROTOCOL_VERSION, refusal, skew

ASKS, ASKS_NOT, OTHER = 1001, 1002, 1003
SUBSCRIBER = Path(_rules.__file__).parent / "crates" / "stream" / "src" / "subscriber.rs"


def rule(peer: int, proof: Authentication, port: int = 80) -> pb.PortRule:
    http = pb.HttpRules(rules=[pb.HttpRule(method="GET")])
    asked = pb.Authentication.ValueType(proof)
    return pb.PortRule(port=port, peers=[peer], rule="r", authentication=asked, http=http)


POLICY = pb.EndpointPolicy(
    endpoint_id=1,
    revision=3,
    ingress=pb.DirectionPolicy(
        enforced=True,
        rules=[
            rule(ASKS, Authentication.REQUIRED),
            rule(ASKS, Authentication.NONE),
            rule(ASKS_NOT, Authentication.NONE),
            rule(OTHER, Authentication.ALWAYS_FAIL),
        ],
    ),
)


def told(version: int) -> pb.EndpointPolicy:
    hub = PolicyHub()
    hub.publish(POLICY)
    response = hub.connect(pb.Hello(protocol_version=version), lambda: None).response()
    assert response
    return response.upserts[0]


def test_the_module_and_the_agent_speak_one_version() -> None:
    found = re.search(r"PROTOCOL_VERSION: u32 = (\d+);", SUBSCRIBER.read_text())
    assert found
    assert int(found[1]) == PROTOCOL_VERSION


@pytest.mark.parametrize("version", range(OLDEST_VERSION, PROTOCOL_VERSION + 1))
def test_two_releases_back_are_served(version: int) -> None:
    assert refusal(pb.Hello(protocol_version=version)) is None


@pytest.mark.parametrize(
    ("version", "remedy"),
    [(OLDEST_VERSION - 1, "restart the pod"), (PROTOCOL_VERSION + 1, "upgrade the agent")],
)
def test_others_are_told_what_to_do(version: int, remedy: str) -> None:
    said = refusal(pb.Hello(protocol_version=version))
    assert said
    assert f"Hello.protocol_version {version}" in said
    assert remedy in said


def test_a_module_of_today_is_told_everything() -> None:
    assert told(PROTOCOL_VERSION) == POLICY


def test_a_module_that_knows_no_authentication_denies_what_asks_for_it() -> None:
    """It leaves the field out, as protobuf does with fields that a program does not know."""
    policy = told(1)
    for each in policy.ingress.rules:
        each.ClearField("authentication")
    answers = {
        peer: _rules.evaluate_http(
            policy.SerializeToString(), 0, (peer, False), 80, "GET", "/", "", []
        )[0]
        for peer in (ASKS, ASKS_NOT, OTHER)
    }
    assert answers == {
        ASKS: pb.VERDICT_DENIED,
        ASKS_NOT: pb.VERDICT_ALLOWED,
        OTHER: pb.VERDICT_DENIED,
    }
    assert POLICY.ingress.rules[0].HasField("http"), "what others are told is as it was"


def test_the_skew_names_both_versions() -> None:
    own = importlib.metadata.version("sidegate")
    same = pb.Hello(protocol_version=PROTOCOL_VERSION, module_version=own)
    assert skew(same) == ""
    older = skew(pb.Hello(protocol_version=1, module_version="0.0.9"))
    assert older == f"module 0.0.9 (protocol 1), agent {own} (protocol {PROTOCOL_VERSION})"
