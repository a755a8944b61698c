"""``sidegate trace`` on the real kernel, where BCC is; elsewhere it says what it lacks."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.images import http_peer
from tests.system.sandbox_rig import CLI, Sandbox, policy
from tracing.main import Missing, check

pytestmark = [pytest.mark.system]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox(Path(__file__).parent / "resources", f"x{os.getpid()}")
    try:
        yield made
    finally:
        made.close()


def missing() -> str:
    try:
        check()
    except Missing as error:
        return str(error)
    return ""


def traced(sandbox: Sandbox, what: str, url: str) -> tuple[int, list[dict[str, Any]], str]:
    command = [str(CLI), "trace", what, "--node", sandbox.node.name, "--seconds", "4", "-o", "json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr
        assert process.stdout
        first = process.stderr.readline()
        if "tracing" in first:
            sandbox.run("client", str(http_peer()), "get", "-timeout", "2s", url)
        lines = process.stdout.read().splitlines()
        return process.wait(20), [json.loads(line) for line in lines], first


@pytest.mark.parametrize("what", ["drops", "tcp"])
def test_the_kernels_events_name_the_pods(sandbox: Sandbox, what: str) -> None:
    if lacking := missing():
        code, events, said = traced(sandbox, what, "http://server:8080/")
        assert (code, events) == (3, [])
        assert said.strip() == f"sidegate: trace: {lacking}"
        return
    sandbox.apply(policy("p", "server", ingress=[{"fromEndpoints": []}]))
    time.sleep(0.1)
    code, events, _ = traced(sandbox, what, "http://server:8080/")
    assert code == 0
    between = [
        event
        for event in events
        if (event["source_pod"], event["destination_pod"]) == ("default/client", "default/server")
        and event["dport"] == 8080
    ]
    if what == "drops":
        assert {event["reason"] for event in between} == {"TC_EGRESS"} or {
            event["reason"] for event in between
        } == {"TC_INGRESS"}
    else:
        assert {"retransmit", "state"} <= {event["kind"] for event in between}
        assert ("CLOSE", "SYN_SENT") in {(e.get("old"), e["state"]) for e in between}
