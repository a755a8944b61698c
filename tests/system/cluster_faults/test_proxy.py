"""Agent and Envoy are containers of their own: the end of the one leaves the other alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from datapath.consts import DropReason
from sandbox.execute import command_in
from tests.system.cluster_faults.shop import (
    ENFORCED,
    NODE_OF,
    NODES,
    SYSTEM,
    address,
    agent_says,
    answered,
    verdicts,
)
from tests.system.cluster_rig import agent_of, end_container, eventually

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

# One connection; the status of a request every 0.2 s, for as many as are asked.
_TALK = """
import http.client, json, sys, time
connection = http.client.HTTPConnection(sys.argv[1], 8080, timeout=5)
seen = []
for _ in range(int(sys.argv[2])):
    connection.request("GET", "/public")
    answer = connection.getresponse()
    answer.read()
    seen.append([answer.status, connection.sock.getsockname()[1]])
    time.sleep(0.2)
print(json.dumps(seen))
"""


def test_the_end_of_an_agents_container_ends_no_connection() -> None:
    before = agent_of(NODES[0])
    command = command_in(
        NODE_OF["far"], "far", [sys.executable, "-c", _TALK, address("server"), "40"]
    )
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as talking:
        time.sleep(1)
        end_container(NODES[0], f"{SYSTEM}_sidegate-agent-", "agent")
        for _ in range(3):
            assert verdicts() == ENFORCED
        said, _ = talking.communicate(timeout=30)
    seen = json.loads(said)
    assert {status for status, _ in seen} == {200}
    assert len({port for _, port in seen}) == 1, "it is the same connection"
    eventually(True, lambda: agent_of(NODES[0]) not in (0, before), 30)
    assert verdicts() == ENFORCED


def test_the_end_of_envoys_container_opens_nothing_and_it_is_back() -> None:
    before = dropped_without_envoy()
    end_container(NODES[0], f"{SYSTEM}_sidegate-proxy-", "proxy")
    seen, end = [], time.monotonic() + 15
    while time.monotonic() < end and 200 not in seen:
        seen += [answered("far"), answered("far", "/private"), answered("other")]
    assert 200 in seen
    assert set(seen[1::3]) <= {0, 403}
    assert set(seen[2::3]) == {0}
    assert dropped_without_envoy() > before
    eventually(ENFORCED, verdicts)


def dropped_without_envoy() -> int:
    counters = json.loads(agent_says(NODES[0]))["datapath"]["counters"]
    return sum(row["packets"] for row in counters if row["reason"] == DropReason.PROXY_DOWN.text)
