"""Verdicts of both layers to flows: decoding, filters, ring, followers, counters."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from flow_observer.filter import BadFilter, FlowFilter
from flow_observer.flow import Flow, Lost
from flow_observer.observer import Observer
from sidegate_api.policy.v1 import policy_pb2 as pb

LABELS = {256: ("k8s:app=frontend",), 257: ("k8s:app=orders",), 2: ("reserved:world",)}
PODS = {"10.0.0.1": "default/frontend", "10.0.0.2": "shop/orders"}


def observer(capacity: int = 100, registry: CollectorRegistry | None = None) -> Observer:
    return Observer(capacity, lambda i: LABELS.get(i, ()), lambda ip: PODS.get(ip, ""), registry)


def record(**more: Any) -> pb.VerdictRecord:
    fields: dict[str, Any] = {
        "time_unix_nanos": 5,
        "verdict": pb.VERDICT_DENIED,
        "reason": pb.REASON_NO_RULE,
        "direction": pb.DIRECTION_INGRESS,
        "endpoint_id": 7,
        "revision": 3,
        "source_identity": 256,
        "destination_identity": 257,
        "source_address": ip_address("10.0.0.1").packed,
        "destination_address": ip_address("::ffff:10.0.0.2").packed,
        "source_port": 40000,
        "destination_port": 8080,
        "count": 1,
    }
    return pb.VerdictRecord(**fields | more)


GET = record(http=pb.HttpRecord(method="GET", path="/v1/orders", host="orders", protocol="HTTP/2"))
FETCH = record(
    verdict=pb.VERDICT_ALLOWED,
    reason=pb.REASON_RULE,
    rule="cnp/shop/orders#ingress[0]",
    count=9,
    latency_nanos=77,
    destination_port=9092,
    kafka=pb.KafkaRecord(api_key=1, api_version=17, client_id="c", topics=["orders", "audit"]),
)


@dataclass
class Event:
    time: int = 6
    saddr: str = "10.0.0.1"
    daddr: str = "2001:db8::1"
    source_identity: int = 256
    destination_identity: int = 2
    sport: int = 40001
    dport: int = 53
    endpoint_id: int = 9
    protocol: int = 17
    direction: str = "egress"
    verdict: str = "dropped"
    reason: str = "policy denied"
    rule: str = ""


def filled() -> Observer:
    seen = observer()
    seen.add_verdicts(pb.VerdictBatch(records=[GET, FETCH]))
    seen.add_events([Event()])
    return seen


def test_an_http_verdict_has_both_ends() -> None:
    flow = filled().last(3)[0]
    assert flow.to_dict() == {
        "time": 5,
        "verdict": "denied",
        "layer": "L7",
        "direction": "ingress",
        "reason": "no_rule",
        "source": {
            "identity": 256,
            "labels": ("k8s:app=frontend",),
            "pod": "default/frontend",
            "ip": "10.0.0.1",
            "port": 40000,
        },
        "destination": {
            "identity": 257,
            "labels": ("k8s:app=orders",),
            "pod": "shop/orders",
            "ip": "10.0.0.2",
            "port": 8080,
        },
        "protocol": "TCP",
        "endpoint_id": 7,
        "rule": "",
        "revision": 3,
        "latency_ns": 0,
        "http": {
            "method": "GET",
            "path": "/v1/orders",
            "host": "orders",
            "status": 0,
            "protocol": "HTTP/2",
        },
        "kafka": None,
        "count": 1,
    }


def test_kafka_and_kernel_verdicts() -> None:
    kafka, kernel = filled().last(2)
    assert kafka.kafka is not None
    assert (kafka.verdict, kafka.rule, kafka.count) == (
        "forwarded",
        "cnp/shop/orders#ingress[0]",
        9,
    )
    assert (kafka.kafka["api"], kafka.kafka["topics"]) == ("fetch", ["orders", "audit"])
    assert (kernel.verdict, kernel.layer, kernel.protocol) == ("denied", "L3/L4", "UDP")
    assert (kernel.destination.labels, kernel.destination.pod) == (("reserved:world",), "")


@pytest.mark.parametrize(
    ("query", "times"),
    [
        ({}, "GET FETCH UDP"),
        ({"verdict": "denied"}, "GET UDP"),
        ({"verdict": "denied", "layer": "l7"}, "GET"),
        ({"direction": "egress"}, "UDP"),
        ({"protocol": "kafka"}, "FETCH"),
        ({"protocol": "TCP"}, "GET FETCH"),
        ({"pod": "orders"}, "GET FETCH"),
        ({"pod": "shop/orders"}, "GET FETCH"),
        ({"pod": "default/orders"}, ""),
        ({"identity": "2"}, "UDP"),
        ({"port": "9092"}, "FETCH"),
        ({"from": "frontend", "to": "reserved:world"}, "UDP"),
        ({"to": "10.0.0.2"}, "GET FETCH"),
        ({"to": "identity:257", "port": "8080"}, "GET"),
        ({"http-method": "get", "http-path": "/v1"}, "GET"),
        ({"http-path": "/v2"}, ""),
        ({"kafka-topic": "audit"}, "FETCH"),
        ({"pod": ""}, "GET FETCH UDP"),
    ],
)
def test_filters(query: dict[str, str], times: str) -> None:
    def name(flow: Flow) -> str:
        return "GET" if flow.http else "FETCH" if flow.kafka else flow.protocol

    assert " ".join(map(name, filled().last(9, FlowFilter.parse(query)))) == times


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({"verdict": "no"}, "verdict: 'no' is not one of forwarded, denied"),
        ({"port": "-1"}, "port: '-1' is not a number"),
        ({"colour": "red"}, "colour: unknown filter; known are direction, from"),
    ],
)
def test_bad_filters_say_what_is_known(query: dict[str, str], message: str) -> None:
    with pytest.raises(BadFilter, match=message):
        FlowFilter.parse(query)


def test_the_ring_keeps_the_newest() -> None:
    seen = observer(4)
    seen.add_events([Event(time=n) for n in range(10)])
    assert [flow.time for flow in seen.last(99)] == [6, 7, 8, 9]
    assert [flow.time for flow in seen.last(2)] == [8, 9]


async def test_followers_see_each_flow_and_how_many_they_missed() -> None:
    seen = observer(4)
    seen.add_events([Event(time=0), Event(time=1, dport=80)])
    follower = seen.follow(FlowFilter.parse({"port": "53"}), last=5)

    async def take() -> int | Lost:
        item = await asyncio.wait_for(anext(follower), 5)
        return item if isinstance(item, Lost) else item.time

    assert await take() == 0
    waiting = asyncio.create_task(take())
    await asyncio.sleep(0)
    seen.add_events([Event(time=2, dport=80), Event(time=3)])
    assert await waiting == 3
    seen.add_events([Event(time=n) for n in range(4, 14)])
    assert [await take() for _ in range(5)] == [Lost(6), 10, 11, 12, 13]


def test_counters_count_what_records_stand_for() -> None:
    registry = CollectorRegistry()
    seen = observer(registry=registry)
    seen.add_verdicts(pb.VerdictBatch(records=[GET, FETCH, FETCH], lost=4))
    seen.add_events([Event()] * 3, lost=2)

    def value(*labels: str) -> float | None:
        names = ("layer", "verdict", "direction", "reason", "protocol")
        return registry.get_sample_value(
            "sidegate_flows_total", dict(zip(names, labels, strict=True))
        )

    assert value("L7", "denied", "ingress", "no_rule", "http") == 1
    assert value("L7", "forwarded", "ingress", "rule", "kafka") == 18
    assert value("L3/L4", "denied", "egress", "policy denied", "udp") == 3
    for source, number in (("module", 4), ("kernel", 2)):
        assert registry.get_sample_value("sidegate_flows_lost_total", {"source": source}) == number
