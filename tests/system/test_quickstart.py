"""What a new user runs, and Kafka policy on connections that live through a change of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.execute import command_in
from tests.system.sandbox_rig import Sandbox

pytestmark = [pytest.mark.system, pytest.mark.slow]

ROOT = Path(__file__).parent.parent.parent
LIVE = ROOT / "tests" / "peers" / "kafka" / "live.py"
EXAMPLE = ROOT / "examples" / "quickstart"


@pytest.mark.parametrize(
    ("options", "said"), [((), "20 of 20 as expected"), (("--gateway",), "6 of 6 as expected")]
)
def test_every_probe_of_the_quickstart_comes_out_as_expected(
    options: tuple[str, ...], said: str
) -> None:
    node = f"--node=q{os.getpid()}"
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.quickstart", "--once", node, *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert said in done.stdout


def await_topics(sandbox: Sandbox) -> None:
    log = sandbox.node.sandbox_dir / "pods" / "default_kafka" / "broker" / "log"
    end = time.monotonic() + 40
    while "Created topic audit" not in log.read_text(errors="replace"):
        assert time.monotonic() < end, "the broker did not come up"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def kafka() -> Iterator[Sandbox]:
    made = Sandbox(EXAMPLE, f"l{os.getpid()}")
    await_topics(made)
    try:
        yield made
    finally:
        made.close()


def kafka_policy(role: str, topic: str) -> dict[str, Any]:
    """The quickstart's own, with another rule for its first peer, who is frontend."""
    documents = yaml.safe_load_all((EXAMPLE / "policies.yaml").read_text())
    found: dict[str, Any] = next(d for d in documents if d["metadata"]["name"] == "kafka")
    rules = found["spec"]["ingress"][0]["toPorts"][0]["rules"]
    rules["kafka"] = [{"role": role, "topic": topic}]
    return found


@pytest.mark.parametrize("action", ["produce", "consume"])
def test_a_change_holds_for_a_live_kafka_client(kafka: Sandbox, action: str) -> None:
    kafka.apply(kafka_policy("produce", "orders"))
    subprocess.run(
        command_in(kafka.node, "frontend", ["kcat", "-b", "kafka:9092", "-P", "-t", "orders"]),
        input=b"one\n",
        check=True,
    )
    kafka.apply(kafka_policy(action, "orders"))
    command = [sys.executable, str(LIVE), action, "kafka:9092", "orders", "25"]
    with subprocess.Popen(
        command_in(kafka.node, "frontend", command), stdout=subprocess.PIPE, text=True
    ) as living:
        assert living.stdout
        assert json.loads(living.stdout.readline())["seen"] == "ok"
        since = time.time_ns()
        begin = time.monotonic_ns()
        kafka.apply(kafka_policy(action, "audit"))
        change = json.loads(living.stdout.readline())
        living.terminate()
    assert change["seen"] == "TOPIC_AUTHORIZATION_FAILED"
    # Measured from the flows, not the client, which may report with a delay of its own.
    time.sleep(0.3)  # verdicts travel in batches
    denied = kafka.flows(since, verdict="denied", layer="L7")
    assert denied
    assert denied[0]["kafka"]["topics"] in (["orders"], [])
    first = (denied[0]["time"] - since) / 1e6
    assert first < 1000, f"first denial after {first:.0f} ms"
    assert change["t"] > begin
