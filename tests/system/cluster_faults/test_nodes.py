"""What becomes of traffic when a node fails, or its agent may not or cannot do what it should."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from sandbox.cluster import kubectl
from tests.system import cluster_rig
from tests.system.cluster_faults.shop import (
    CLUSTER,
    ENFORCED,
    NODES,
    agent_says,
    answered,
    apply,
    pod,
    policy,
    status,
    verdicts,
)
from tests.system.cluster_rig import agent_of, api_server_away, eventually

# Longer than any lease and any back-off of ours. Six hundred is the same test, by hand.
OUTAGE_SECONDS = float(os.environ.get("SIDEGATE_OUTAGE_SECONDS", "30"))
pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.timeout(300 + OUTAGE_SECONDS),
]


@contextlib.contextmanager
def forbidden_requests() -> Iterator[list[int | None]]:
    """What was answered, all along, to whom the policy names not and to what it does not name."""
    answers: list[int | None] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            for client, path in (("other", "/public"), ("far", "/private")):
                answers.append(answered(client, path))

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield answers
    finally:
        over.set()
        asking.join(30)


def test_a_node_that_reboots_opens_nothing_and_is_back() -> None:
    """Its pins, interfaces and /run are gone; its pods come back before or after the agent."""
    agents = [agent_of(node) for node in NODES]
    with forbidden_requests() as answers:
        subprocess.run(
            [str(cluster_rig.CLI), "sandbox", "reboot", NODES[0].name], check=True, timeout=60
        )
        eventually(True, lambda: agent_of(NODES[0]) not in (0, agents[0]), 60)
        eventually(ENFORCED, verdicts, 90)
    assert agent_of(NODES[1]) == agents[1]
    assert len(answers) > 10
    assert set(answers) <= {None, 0, 403}, "nothing that is forbidden was answered"


def test_an_agent_that_lost_its_rights_says_so_and_changes_nothing() -> None:
    binding = kubectl(CLUSTER, "get", "clusterrolebinding", "sidegate-agent", "-ojson")
    kubectl(CLUSTER, "delete", "clusterrolebinding", "sidegate-agent")
    try:
        before = agent_of(NODES[0])
        os.kill(before, signal.SIGKILL)
        eventually(True, lambda: agent_of(NODES[0]) not in (0, before), 30)
        eventually(True, lambda: "forbidden" in agent_says(NODES[0]), 30)
        assert "not ready" in agent_says(NODES[0])
        for _ in range(3):
            assert verdicts() == ENFORCED
        apply(policy("/other"))
        assert [status("far"), status("far", "/other")] == [200, 403], "it cannot know"
    finally:
        apply(json.loads(binding))
    eventually([403, 200], lambda: [status("far"), status("far", "/other")], 60)
    apply(policy("/public.*"))
    eventually(ENFORCED, verdicts, 30)


def test_without_a_free_address_a_pod_waits_and_the_others_live() -> None:
    leases = NODES[1].root / "run/sidegate/ipam"
    used = {path.name for path in leases.iterdir()}
    prefix = next(name for name in used if name.startswith("10.")).rpartition(".")[0]
    leaked = [leases / f"{prefix}.{n}" for n in range(2, 255) if f"{prefix}.{n}" not in used]
    for path in leaked:
        path.write_text("leaked eth0")
    late = pod("late", "client", NODES[1].name, "sleep", "infinity")
    try:
        apply(late)
        eventually(True, lambda: "no address is free" in waits_for("late"))
        assert f"{prefix}.0/24" in waits_for("late")
        assert verdicts() == ENFORCED
    finally:
        for path in leaked:
            path.unlink()
    kubectl(CLUSTER, "wait", "--for=condition=Ready", "pod", "late", "--timeout=30s")
    kubectl(CLUSTER, "delete", "pod", "late", "--now")


def waits_for(name: str) -> str:
    """Why its container does not run."""
    found = json.loads(kubectl(CLUSTER, "get", "pod", name, "-ojson"))
    states = found["status"].get("containerStatuses") or [{}]
    return str(states[0].get("state", {}).get("waiting", {}).get("message", ""))


def test_a_long_time_without_the_api_server() -> None:
    """Nothing runs out."""
    with api_server_away(CLUSTER):
        end = time.monotonic() + OUTAGE_SECONDS
        while time.monotonic() < end:
            assert verdicts() == ENFORCED
            time.sleep(2)
    apply(policy("/other"))
    eventually([403, 200], lambda: [status("far"), status("far", "/other")], 60)
    apply(policy("/public.*"))
    eventually(ENFORCED, verdicts, 30)
