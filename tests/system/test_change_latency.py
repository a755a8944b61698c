"""A change of policy holds on live connections within 100 ms: p99 of 100 changes, from the call of
apply to the first request that sees it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sandbox.execute import command_in
from sandbox.images import http_peer
from tests.system.sandbox_rig import Sandbox, http_rule, policy
from tests.system.test_quickstart import EXAMPLE, await_topics, kafka_policy

pytestmark = [pytest.mark.system, pytest.mark.slow]

PEERS = Path(__file__).parent.parent / "peers"
CHANGES = 100
P99_MS = 100


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(EXAMPLE, f"c{os.getpid()}")
    await_topics(made)
    for item in made.api.get("/v1/resources", params={"kind": "cnp"}).json()["items"]:
        made.delete(item["manifest"])
    try:
        yield made
    finally:
        made.close()


def p99(
    sandbox: Sandbox,
    watch: Sequence[str],
    read: Callable[[dict[str, Any]], str],
    opened: dict[str, Any],
    closed: dict[str, Any],
) -> float:
    """``watch`` runs in frontend and prints a line for each change; ``read``: open or closed."""
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
    return sorted(took)[CHANGES - 2]


def by_status(line: dict[str, Any]) -> str:
    """An HTTP status, or a gRPC code: PERMISSION_DENIED is 7."""
    return {200: "open", 0: "open", 403: "closed", 7: "closed"}.get(line["status"], str(line))


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("direction", ["ingress", "egress"])
@pytest.mark.parametrize("protocol", ["http1", "http2", "grpc"])
def test_http(sandbox: Sandbox, protocol: str, direction: str, family: int) -> None:
    def change(*rules: dict[str, str]) -> dict[str, Any]:
        if direction == "ingress":
            return policy("p", "orders", ingress=[http_rule("from", "frontend", *rules)])
        return policy("p", "frontend", egress=[http_rule("to", "orders", *rules)])

    address = f"{sandbox.address('orders', family)}:8080"
    options = {"http1": [], "http2": ["-http2"], "grpc": ["-grpc"]}[protocol]
    url = address if protocol == "grpc" else f"http://{address}/v1/orders"
    watch = [str(http_peer()), "hold", *options, "-duration", "60s", url]
    opened, closed = change({}), change({"method": "DELETE"})
    try:
        seen = p99(sandbox, watch, by_status, opened, closed)
    finally:
        sandbox.delete(opened)
    assert seen <= P99_MS


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("action", ["produce", "consume"])
def test_kafka(sandbox: Sandbox, action: str, family: int) -> None:
    host = sandbox.address("kafka", family).strip("[]")
    tight = str(PEERS / "kafka" / "tight.py")
    watch = [sys.executable, tight, action, host, "9092", "orders", "60"]
    opened, closed = kafka_policy(action, "orders"), kafka_policy(action, "audit")

    def by_error(line: dict[str, Any]) -> str:
        return {0: "open", 29: "closed"}.get(line["error"], str(line))

    try:
        seen = p99(sandbox, watch, by_error, opened, closed)
    finally:
        sandbox.delete(opened)
    assert seen <= P99_MS
