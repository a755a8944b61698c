"""The module's evaluation as Python sees it."""

from __future__ import annotations

import pytest

from l7_proxy_ext import _rules
from sidegate_api.policy.v1 import policy_pb2 as pb

PEER = 1001


def policy(rule: pb.PortRule) -> bytes:
    rule.any_peer = True
    rule.rule = "cnp/test/rule"
    ingress = pb.DirectionPolicy(enforced=True, rules=[rule])
    return pb.EndpointPolicy(endpoint_id=1, ingress=ingress).SerializeToString()


HTTP = pb.HttpRule(
    method="GET", path="/v1/.*", headers=[pb.HeaderMatch(name="x-a", has_value=True, value="1")]
)
KAFKA = pb.KafkaRule(api_keys=[0, 3], topic="orders")


@pytest.mark.parametrize(
    ("method", "path", "headers", "answer"),
    [
        ("GET", "/v1/a", [("X-A", "1")], (pb.VERDICT_ALLOWED, pb.REASON_RULE, "cnp/test/rule")),
        ("GET", "/v1/a", [], (pb.VERDICT_DENIED, pb.REASON_NO_RULE, "")),
        ("PUT", "/v1/a", [("x-a", "1")], (pb.VERDICT_DENIED, pb.REASON_NO_RULE, "")),
        ("GET", "/v1/../b", [("x-a", "1")], (pb.VERDICT_DENIED, pb.REASON_NO_RULE, "")),
    ],
)
def test_http(
    method: str, path: str, headers: list[tuple[str, str]], answer: tuple[int, int, str]
) -> None:
    rule = policy(pb.PortRule(port=80, http=pb.HttpRules(rules=[HTTP])))
    assert _rules.evaluate_http(rule, 0, (PEER, False), 80, method, path, "host", headers) == answer


@pytest.mark.parametrize(
    ("api_key", "topics", "allowed"),
    [
        (0, ["orders"], True),
        (0, ["orders", "audit"], False),
        (3, [], True),
        (1, ["orders"], False),
    ],
)
def test_kafka(api_key: int, topics: list[str], allowed: bool) -> None:
    rule = policy(pb.PortRule(port=9092, kafka=pb.KafkaRules(rules=[KAFKA])))
    verdict, _, _ = _rules.evaluate_kafka(
        rule, 0, (PEER, False), 9092, api_key, 9, "client", topics
    )
    assert (verdict == pb.VERDICT_ALLOWED) is allowed


def test_a_direction_that_is_not_enforced_allows() -> None:
    answer = (pb.VERDICT_ALLOWED, pb.REASON_NOT_ENFORCED, "")
    assert _rules.evaluate_http(b"", 1, (PEER, False), 80, "GET", "/", "", []) == answer


def test_regex_error() -> None:
    assert _rules.regex_error("/v1/(a|b)") is None
    assert "unclosed group" in (_rules.regex_error("/v1/(a") or "")


def test_what_is_wrong_is_named() -> None:
    bad = policy(pb.PortRule(http=pb.HttpRules(rules=[pb.HttpRule(path="(")])))
    with pytest.raises(ValueError, match=r'cnp/test/rule: path "\("'):
        _rules.evaluate_http(bad, 0, (PEER, False), 80, "GET", "/", "", [])
    with pytest.raises(ValueError, match="direction 7"):
        _rules.evaluate_http(b"", 7, (PEER, False), 80, "GET", "/", "", [])
    with pytest.raises(ValueError, match="endpoint_policy"):
        _rules.evaluate_http(b"\xff", 0, (PEER, False), 80, "GET", "/", "", [])
