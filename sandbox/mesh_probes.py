"""Probes of the mesh's example: what a pod sees of a request to another one."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import yaml

from sandbox import probes
from sandbox.cluster import kubectl, kubectl_command
from sandbox.control_plane import Cluster
from sandbox.probes import Probe

EXAMPLE = Path(__file__).parent.parent / "examples" / "bookinfo-kafka"
_PROBES = EXAMPLE.with_name("bookinfo-kafka-probes.yaml")
_PORT = 8080
_PATIENCE = 20.0


def load() -> dict[str, list[Probe]]:
    """What to try after each step, by the name of its file. Raises ValueError, OSError."""
    steps = yaml.safe_load(_PROBES.read_text())
    return {name: probes.parse(f"{_PROBES.name}: {name}", items) for name, items in steps.items()}


def whom(probe: Probe) -> str:
    """The pod that is asked."""
    return "kafka" if probe.kafka else probe.http.split()[1].partition("/")[0]


def seen(cluster: Cluster, probe: Probe) -> tuple[str, int]:
    """What comes of it, once it is what is expected or patience ends; and when the last attempt
    began (nanoseconds since the epoch)."""
    limit = time.monotonic() + _PATIENCE
    while True:
        begin = time.time_ns()
        said = _kafka(cluster, probe) if probe.kafka else _http(cluster, probe)
        if said == probe.expect or time.monotonic() > limit:
            return said, begin
        time.sleep(0.5)


def ask(cluster: Cluster, who: str, arguments: Sequence[str]) -> str:
    """The status that a pod's request ends with; "none" without an answer."""
    try:
        said = kubectl(cluster, "exec", who, "-c", "app", "--", "http", "get", *arguments)
        status = json.loads(said.splitlines()[-1])["status"]
    except (subprocess.CalledProcessError, ValueError, LookupError):
        return "none"
    return str(status) if status else "none"


def _http(cluster: Cluster, probe: Probe) -> str:
    method, address = probe.http.split()
    host, _, path = address.partition("/")
    header = ("--header", probe.header) if probe.header else ()
    url = f"http://{host}:{_PORT}/{path}"
    return ask(cluster, probe.who, ("--timeout=2s", "--method", method, *header, url))


def _kafka(cluster: Cluster, probe: Probe) -> str:
    within = ("exec", "-i", probe.who, "-c", "app", "--", *probes.kafka_command(probe))
    done = subprocess.run(
        kubectl_command(cluster, *within), check=False, capture_output=True, text=True,
        input=probes.TEXT,
    )  # fmt: skip
    said = probes.kafka_seen(probe, done.returncode, done.stdout, done.stderr)
    return "none" if said == "dropped" else said
