"""Denials of every Kafka API and version, read by Kafka's own Java client.

``cargo run --example denials`` prints what a connection is answered on which policy allows nothing;
``tests/peers/kafka/Responses.java`` reads that, and says which errors it sees in it.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from sandbox import kafka_broker
from sandbox.binaries import cache_dir

pytestmark = [pytest.mark.system, pytest.mark.slow]

ROOT = Path(__file__).parent.parent.parent
TOPIC, GROUP, CLUSTER, TRANSACTION, UNKNOWN_ID = 29, 30, 31, 53, 100

# What is answered to a request that names two of everything: topics, groups, resources (of which
# the first is a topic, the second the cluster).
BY_ERRORS = {
    (TOPIC,): "0 1 2 3 8 9 19 20 21 23 24 28 34 35 37 43 45 46 47 61 68 75 76 78 79 88 90 91 92",
    (GROUP,): "10 11 12 13 14 15 16 42 69 77 89",
    (CLUSTER,): "17 18 29 31 36 38 39 40 41 48 49 51 60 64 66 71 72 74 80 81",
    (TRANSACTION,): "22 25 26 65",
    (TOPIC, CLUSTER): "30 32 33 44",
    (): "50",  # Java does not count this response's own error
}
EXPECTED = {int(key): set(errors) for errors, keys in BY_ERRORS.items() for key in keys.split()}
# The first version that names topics by id alone.
BY_ID = {0: 13, 1: 13, 8: 10, 9: 10, 78: 0, 79: 0}
# Here id and name both stand in the sample, so both are answered.
BY_BOTH = {3: 10}
# Answered without any error: no place for one, and an empty list means "not authorized" to clients.
SILENT = {(35, 1), (35, 2)}


def expected(case: str, key: int, version: int) -> set[int]:
    if (key, version) in SILENT:
        return set()
    if case == "unknown" and version >= BY_ID.get(key, 99):
        return {UNKNOWN_ID}
    if case == "unknown" and version >= BY_BOTH.get(key, 99):
        return {UNKNOWN_ID, TOPIC}
    return EXPECTED[key]


@pytest.fixture(scope="module")
def answers() -> list[tuple[str, int, int, str]]:
    """Case, API key, version and what Java says of each response."""
    target = os.environ.get("CARGO_TARGET_DIR", str(cache_dir() / "cargo-target"))
    command = ["cargo", "run", "--quiet", "--locked", "--target-dir", target]
    command += ["--manifest-path", str(ROOT / "l7_proxy_ext" / "Cargo.toml")]
    command += ["-p", "sidegate-kafka", "--features", "samples", "--example", "denials"]
    denials = subprocess.run(command, check=True, capture_output=True, timeout=110)
    java = ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{kafka_broker.prepare()}/*"]
    source = ROOT / "tests" / "peers" / "kafka" / "Responses.java"
    read = subprocess.run(
        [*java, str(source)], check=True, capture_output=True, timeout=60, input=denials.stdout
    )
    made = []
    for line in read.stdout.decode().splitlines():
        case, key, version, said = line.split(" ", 3)
        made.append((case, int(key), int(version), said))
    assert len(made) == len(denials.stdout.splitlines())
    return made


def codes(said: str) -> set[int]:
    """The errors of ``29=4,0=1``, without 0."""
    return {int(part.split("=")[0]) for part in said.split(",") if part} - {0}


@pytest.mark.timeout(180)
def test_java_reads_every_denial(answers: list[tuple[str, int, int, str]]) -> None:
    assert len(answers) > 750
    assert [answer for answer in answers if answer[3].startswith("!")] == []


@pytest.mark.timeout(180)
def test_every_denial_says_what_is_denied(answers: list[tuple[str, int, int, str]]) -> None:
    wrong = [
        (case, key, version, said)
        for case, key, version, said in answers
        if case != "empty" and codes(said) != expected(case, key, version)
    ]
    assert wrong == []
