"""A change of policy holds on live connections within 100 ms: p99 of 100 changes, from the call of
apply to the first request that sees it."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sandbox.execute import command_in
from sandbox.images import http_peer
from tests.system.sandbox_rig import Sandbox, policy
from tests.system.test_quickstart import EXAMPLE, await_topics

pytestmark = [pytest.mark.system, pytest.mark.slow]

PEERS = Path(__file__).parent.parent / "peers"
CHANGES = 100
P99_MS = 100


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(EXAMPLE, f"c{os.getpid()}")
    try:
        await_topics(made)
        for item in made.api.get("/v1/resources", params={"kind": "cnp"}).json()["items"]:
            made.delete(item["manifest"])
        yield made
    finally:
        made.close()


def changed(
    sandbox: Sandbox,
    watch: Sequence[str],
    read: Callable[[dict[str, Any]], str],
    opened: dict[str, Any],
    closed: dict[str, Any],
) -> list[float]:
    """How long each change took, in ms, the longest last.

    ``watch`` runs in frontend on one connection and prints a line for each change that it sees;
    ``read`` makes open or closed of a line.
    """
    sandbox.apply(opened)
    took: list[float] = []
    with subprocess.Popen(
        command_in(sandbox.node, "frontend", watch), stdout=subprocess.PIPE, text=True
    ) as watching:
        try:
            assert watching.stdout
            assert read(json.loads(watching.stdout.readline())) == "open"
            for number in range(CHANGES):
                wanted, change = ("open", opened) if number % 2 else ("closed", closed)
                begin = time.monotonic_ns()
                sandbox.apply(change)
                seen = json.loads(watching.stdout.readline())
                assert read(seen) == wanted
                took.append((seen["t"] - begin) / 1e6)
        finally:
            watching.terminate()
            sandbox.delete(opened)
    return sorted(took)


def p99(took: list[float]) -> float:
    """Of 100 the last but one; says all there is to know if the test fails."""
    print(f"ms: median {statistics.median(took):.1f}, the longest {took[-5:]}")
    return took[CHANGES - 2]


def rules(direction: str, peer: str, port: int, **l7: list[dict[str, str]]) -> dict[str, Any]:
    """Frontend's policy for a peer (egress), or the peer's for frontend (ingress)."""
    ports = [{"ports": [{"port": str(port), "protocol": "TCP"}], "rules": l7}]
    if direction == "ingress":
        source = [{"matchLabels": {"app": "frontend"}}]
        return policy("p", peer, ingress=[{"fromEndpoints": source, "toPorts": ports}])
    destination = [{"matchLabels": {"app": peer}}]
    return policy("p", "frontend", egress=[{"toEndpoints": destination, "toPorts": ports}])


def by_status(line: dict[str, Any]) -> str:
    """An HTTP status, or a gRPC code: PERMISSION_DENIED is 7."""
    assert line["dials"] == 1, "a live connection, not a new one"
    return {200: "open", 0: "open", 403: "closed", 7: "closed"}.get(line["status"], str(line))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize("protocol", ["http1", "http2", "grpc"])
def test_http(sandbox: Sandbox, protocol: str, direction: str, family: int) -> None:
    address = f"{sandbox.address('orders', family)}:8080"
    options = {"http1": [], "http2": ["-http2"], "grpc": ["-grpc"]}[protocol]
    url = address if protocol == "grpc" else f"http://{address}/v1/orders"
    watch = [str(http_peer()), "hold", *options, "-duration", "60s", url]
    opened = rules(direction, "orders", 8080, http=[{}])
    closed = rules(direction, "orders", 8080, http=[{"method": "DELETE"}])
    assert p99(changed(sandbox, watch, by_status, opened, closed)) <= P99_MS


def by_error(line: dict[str, Any]) -> str:
    """Kafka's error code: TOPIC_AUTHORIZATION_FAILED is 29."""
    return {0: "open", 29: "closed"}.get(line["error"], str(line))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize("action", ["produce", "consume"])
def test_kafka(sandbox: Sandbox, action: str, direction: str, family: int) -> None:
    host = sandbox.address("kafka", family).strip("[]")
    tight = str(PEERS / "kafka" / "tight.py")
    watch = [sys.executable, tight, action, host, "9092", "orders", "60"]
    opened = rules(direction, "kafka", 9092, kafka=[{"role": action, "topic": "orders"}])
    closed = rules(direction, "kafka", 9092, kafka=[{"role": action, "topic": "audit"}])
    assert p99(changed(sandbox, watch, by_error, opened, closed)) <= P99_MS
