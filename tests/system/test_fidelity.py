"""An allowed exchange is unchanged save for what HTTP defines as hop-by-hop (RFC 9110, 7.6.1)."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.execute import command_in
from sandbox.images import http_peer
from tests.system.sandbox_rig import Sandbox, http_rule, policy

pytestmark = [pytest.mark.system, pytest.mark.slow]

RAW = str(Path(__file__).parent.parent / "peers" / "raw_http.py")
EVERYTHING = {"path": ".*"}
HOP_BY_HOP = ("connection", "keep-alive", "te", "transfer-encoding", "upgrade", "trailer")
SECONDS = 60


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(Path(__file__).parent / "resources", f"y{os.getpid()}")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def through_envoy(sandbox: Sandbox) -> Sandbox:
    """Both ports of the server are selected for HTTP, and every request is allowed."""
    rule = http_rule("from", "client", EVERYTHING)
    rule["toPorts"][0]["ports"].append({"port": "8081", "protocol": "TCP"})
    sandbox.apply(policy("p", "server", ingress=[rule]))
    return sandbox


def in_pod(sandbox: Sandbox, pod: str, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command_in(sandbox.node, pod, command), stdout=subprocess.PIPE, text=True
    )


def answer(process: subprocess.Popen[str], seconds: float) -> Any:
    return json.loads(process.communicate(timeout=seconds)[0])


@pytest.fixture(scope="module")
def streaming(through_envoy: Sandbox) -> subprocess.Popen[str]:
    """Begun first and looked at last."""
    path = f"/stream?seconds={SECONDS}&interval_ms=1000"
    return in_pod(through_envoy, "client", sys.executable, RAW, "stream", "server", "8080", path)


def asked(sandbox: Sandbox) -> Any:
    return json.loads(sandbox.run("client", sys.executable, RAW, "ask", "server", "8081").stdout)


def end_to_end(head: list[str]) -> list[str]:
    """The first line, then the fields that are not hop-by-hop; of one name in their order."""
    fields = [line for line in head[1:] if line.partition(":")[0].lower() not in HOP_BY_HOP]
    fields = [": ".join(part.strip() for part in line.split(":", 1)) for line in fields]
    return [head[0], *sorted(fields, key=lambda line: line.partition(":")[0].lower())]


def test_both_ends_see_the_same_as_without_envoy(sandbox: Sandbox) -> None:
    anyone: dict[str, Any] = {"fromEndpoints": [{}]}
    sandbox.apply(policy("p", "server", ingress=[anyone]))
    server = in_pod(sandbox, "server", sys.executable, RAW, "serve", "8081")
    try:
        time.sleep(0.5)
        direct = asked(sandbox)
        http = http_rule("from", "client", EVERYTHING)
        http["toPorts"][0]["ports"] = [{"port": "8081", "protocol": "TCP"}]
        sandbox.apply(policy("p", "server", ingress=[http]))
        since = time.time_ns()
        proxied = asked(sandbox)
    finally:
        server.terminate()
        server.wait(5)
    time.sleep(0.3)
    assert sandbox.flows(since, layer="L7"), "it went by way of Envoy"
    assert end_to_end(proxied["head"]) == end_to_end(direct["head"])
    seen, wanted = proxied.pop("server"), direct.pop("server")
    assert end_to_end(seen["head"]) == end_to_end(wanted["head"])
    assert seen["digest"] == wanted["digest"]
    assert proxied["digest"] == direct["digest"]
    # Envoy keeps the case of headers, not of trailers; names have none (RFC 9110, 5.1).
    assert proxied["trailers"] == [line.lower() for line in direct["trailers"]]


@pytest.mark.parametrize("http2", [False, True])
def test_trailers_pass(
    through_envoy: Sandbox, streaming: subprocess.Popen[str], http2: bool
) -> None:
    options = ["-http2"] if http2 else []
    seen = through_envoy.get("client", "http://server:8080/trailers", *options)
    assert (seen["status"], seen["body"]) == (200, "body\n")
    assert seen["trailers"] == {"X-Checksum": ["1234"]}


def test_a_websocket_passes(through_envoy: Sandbox, streaming: subprocess.Popen[str]) -> None:
    done = through_envoy.run("client", str(http_peer()), "ws", "ws://server:8080/ws")
    assert json.loads(done.stdout)["echo"] == "hello"


def test_five_thousand_connections_at_once(
    through_envoy: Sandbox, streaming: subprocess.Popen[str]
) -> None:
    command = [str(http_peer()), "load", "-conns", "5000", "http://server:8080/"]
    limited = ["prlimit", "--nofile=20000:20000", *command]
    assert answer(in_pod(through_envoy, "client", *limited), 90) == {"ok": 10000, "failed": 0}


def test_a_response_streams_for_a_minute(streaming: subprocess.Popen[str]) -> None:
    seen = answer(streaming, SECONDS + 30)
    assert seen["last"].endswith("end\n\r\n0\r\n\r\n")
    arrived = seen["arrived"]
    assert arrived[-1] >= SECONDS
    assert len(arrived) >= SECONDS
    assert max(b - a for a, b in itertools.pairwise(arrived)) < 5, "piece by piece"
