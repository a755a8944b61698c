"""An allowed exchange is unchanged save for what HTTP defines as hop-by-hop (RFC 9110, 7.6.1)."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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
CONNECTIONS = 5000


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(Path(__file__).parent / "resources", f"y{os.getpid()}")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def through_envoy(sandbox: Sandbox) -> Sandbox:
    """The server is selected for HTTP, and every request is allowed."""
    sandbox.apply(policy("p", "server", ingress=[http_rule("from", "client", EVERYTHING)]))
    since = time.time_ns()
    assert sandbox.status("client", "http://server:8080/") == 200
    assert_judged(sandbox, since)
    return sandbox


def assert_judged(sandbox: Sandbox, since: int) -> None:
    """That Envoy is in the way is said by nothing in an answer, but by a flow."""
    time.sleep(0.3)  # verdicts travel in batches
    assert sandbox.flows(since, layer="L7", verdict="forwarded"), "it went by way of Envoy"


def in_pod(sandbox: Sandbox, pod: str, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command_in(sandbox.node, pod, command), stdout=subprocess.PIPE, text=True
    )


def answer(process: subprocess.Popen[str], seconds: float) -> Any:
    return json.loads(process.communicate(timeout=seconds)[0])


@pytest.fixture(scope="module")
def streaming(through_envoy: Sandbox) -> Iterator[subprocess.Popen[str]]:
    """Begun first and looked at last."""
    path = f"/stream?seconds={SECONDS}&interval_ms=1000"
    with in_pod(
        through_envoy, "client", sys.executable, RAW, "stream", "server", "8080", path
    ) as p:
        yield p
        p.terminate()


# -- the same exchange with a policy and without any ----------------------------------------------


def both_ways(
    sandbox: Sandbox, server: list[str], port: int, ask: Callable[[], Any]
) -> tuple[Any, Any]:
    """What is asked of a server in pod other: without any policy, then by way of Envoy."""
    http = http_rule("from", "client", EVERYTHING)
    http["toPorts"][0]["ports"][0]["port"] = str(port)
    selected = policy("other", "other", ingress=[http])
    serving = in_pod(sandbox, "other", *server)
    try:
        time.sleep(0.5)
        direct = ask()
        sandbox.apply(selected)
        since = time.time_ns()
        proxied = ask()
        assert_judged(sandbox, since)
    finally:
        sandbox.delete(selected)
        serving.terminate()
        serving.wait(5)
    return direct, proxied


def end_to_end(head: list[str]) -> list[str]:
    """The first line, then the fields that are not hop-by-hop; of one name in their order."""
    fields = [line for line in head[1:] if line.partition(":")[0].lower() not in HOP_BY_HOP]
    fields = [": ".join(part.strip() for part in line.split(":", 1)) for line in fields]
    return [head[0], *sorted(fields, key=lambda line: line.partition(":")[0].lower())]


def test_both_ends_see_the_same_as_without_envoy(sandbox: Sandbox) -> None:
    def ask() -> Any:
        done = sandbox.run("client", sys.executable, RAW, "ask", "other", "8081")
        return json.loads(done.stdout)

    direct, proxied = both_ways(sandbox, [sys.executable, RAW, "serve", "8081"], 8081, ask)
    assert direct["head"][0] == "HTTP/1.1 207 Fine By Me"
    assert end_to_end(proxied["head"]) == end_to_end(direct["head"])
    seen, wanted = proxied["server"], direct["server"]
    assert end_to_end(seen["head"]) == end_to_end(wanted["head"])
    assert seen["digest"] == wanted["digest"]
    assert proxied["digest"] == direct["digest"]
    # Envoy keeps the case of headers, not of trailers; names have none (RFC 9110, 5.1).
    assert proxied["trailers"] == [line.lower() for line in direct["trailers"]]


def test_both_ends_see_the_same_over_http2(sandbox: Sandbox) -> None:
    def ask() -> Any:
        fields = (
            "x-odd: a  b",
            "x-forwarded-for: 198.51.100.7",
            "x-request-id: mine",
            "te: trailers",
        )
        options = [part for field in fields for part in ("-header", field)]
        url = "http://other:8082/Odd%20path;x=1?q=%2F&q=b"
        seen = sandbox.get("client", url, "-http2", "-method", "PUT", "-data", "body", *options)
        seen["server"] = json.loads(seen.pop("body"))
        seen["server"]["remote"] = seen["server"]["remote"].rpartition(":")[0]  # not the port
        assert seen["headers"].pop("Date")
        return seen

    server = [str(http_peer()), "serve", "--http", ":8082"]
    direct, proxied = both_ways(sandbox, server, 8082, ask)
    assert (direct["status"], direct["server"]["proto"]) == (200, "HTTP/2.0")
    assert proxied == direct


# -- long, many, and other than a request and a response ------------------------------------------


@pytest.mark.parametrize("http2", [False, True])
def test_trailers_pass_both_ways(
    through_envoy: Sandbox, streaming: subprocess.Popen[str], http2: bool
) -> None:
    options = ["-http2"] if http2 else []
    options += ["-method", "POST", "-data", "body", "-trailer", "X-Mine: 5678"]
    seen = through_envoy.get("client", "http://server:8080/trailers", *options)
    assert (seen["status"], seen["body"]) == (200, "body\n")
    assert seen["trailers"] == {"X-Checksum": ["1234"], "X-Yours": ["5678"]}


def test_a_websocket_passes(through_envoy: Sandbox, streaming: subprocess.Popen[str]) -> None:
    done = through_envoy.run("client", str(http_peer()), "ws", "ws://server:8080/ws")
    seen = json.loads(done.stdout)
    assert (seen["status"], seen["echo"]) == (101, "hello")


def test_five_thousand_connections_at_once(
    through_envoy: Sandbox, streaming: subprocess.Popen[str]
) -> None:
    """Each is asked twice, the second time when all are open: none was given up in between."""
    command = [str(http_peer()), "load", "-conns", str(CONNECTIONS), "http://server:8080/"]
    limited = ["prlimit", "--nofile=20000:20000", *command]
    seen = answer(in_pod(through_envoy, "client", *limited), 90)
    assert seen == {"ok": 2 * CONNECTIONS, "failed": 0}


def test_a_response_streams_for_a_minute(streaming: subprocess.Popen[str]) -> None:
    arrived, pieces = zip(*answer(streaming, SECONDS + 30), strict=True)
    head, _, body = "".join(pieces).partition("\r\n\r\n")
    assert head.startswith("HTTP/1.1 200 OK\r\n")
    assert body.endswith("\r\n0\r\n\r\n")
    lines = "".join(body.split("\r\n")[1::2]).splitlines()  # chunks: a size, a line
    assert lines == [*map(str, range(len(lines) - 1)), "end"]
    assert len(lines) > SECONDS - 5, "a line a second, give or take what a busy machine costs"
    assert arrived[-1] >= SECONDS
    longest = max(b - a for a, b in itertools.pairwise(arrived))
    assert longest < 5, "each when it was sent, though thousands of connections begin meanwhile"
