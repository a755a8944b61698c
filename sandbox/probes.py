"""Probes of the quickstart: what a pod sees of a request, and which layer decided it."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from sandbox import kafka_broker
from sandbox.execute import command_in
from sandbox.node import Node

_BROKER = "kafka:9092"
_PATIENCE = 15.0
TEXT = "hello\n"  # what producers send


@dataclass(frozen=True, slots=True)
class Probe:
    """One line of ``quickstart-probes.yaml``."""

    who: str
    expect: str
    http: str = ""
    kafka: str = ""
    client: str = "librdkafka"
    http2: bool = False
    header: str = ""
    family: int = 6

    @property
    def what(self) -> str:
        """For people."""
        if self.kafka:
            return f"{self.kafka} ({self.client})"
        extra = [part for part in ("HTTP/2" if self.http2 else "", self.header) if part]
        if self.family == 4:
            extra.append("IPv4")
        return self.http + (f" ({', '.join(extra)})" if extra else "")


def load(path: Path) -> list[Probe]:
    """Raises ValueError naming the probe, OSError."""
    return parse(path.name, yaml.safe_load(path.read_text()))


def parse(where: str, items: Iterable[Mapping[str, Any]]) -> list[Probe]:
    """Raises ValueError naming the probe in ``where``."""
    probes = []
    for index, item in enumerate(items):
        try:
            probes.append(Probe(**{**item, "expect": str(item["expect"])}))
        except (TypeError, KeyError) as error:
            raise ValueError(f"{where}[{index}]: {error}") from None
    return probes


def run(node: Node, probe: Probe) -> str:
    """What the pod saw: a status, allowed, denied, dropped, refused, or an error's text."""
    return _kafka(node, probe) if probe.kafka else _http(node, probe)


def decided(api: httpx.Client, probe: Probe, since: int) -> tuple[str, str]:
    """(layer, rule or reason) of the verdict that settled the probe, from the agent's flows."""
    for _ in range(20):
        answer = api.get("/v1/flows", params={"last": "200", "from": probe.who})
        flows = [json.loads(line) for line in answer.text.splitlines()]
        flows = [f for f in flows if f["time"] >= since and f["verdict"] != "redirected"]
        wanted = "denied" if probe.expect in ("denied", "dropped", "403") else "forwarded"
        matching = [f for f in flows if f["verdict"] == wanted]
        if matching:
            last = max(matching, key=lambda f: (f["layer"] == "L7", f["time"]))
            return last["layer"], last["rule"] or last["reason"].replace("_", " ")
        time.sleep(0.05)
    return "-", ""


def _in_pod(node: Node, pod: str, command: list[str], text: str = "") -> tuple[int, str, str]:
    try:
        done = subprocess.run(
            command_in(node, pod, command),
            check=False,
            capture_output=True,
            text=True,
            input=text,
            timeout=_PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return -1, "", "timed out"
    return done.returncode, done.stdout, done.stderr


def _http(node: Node, probe: Probe) -> str:
    method, _, url = probe.http.partition(" ")
    command = ["curl", "-sS", "-m", "2", "-o", "/dev/null", "-w", "%{http_code}", "-X", method]
    command += ["--path-as-is", f"-{probe.family}"]
    command += ["--http2-prior-knowledge"] if probe.http2 else []
    command += ["-H", probe.header] if probe.header else []
    code, out, _ = _in_pod(node, probe.who, [*command, url])
    by_code = {28: "dropped", 7: "refused", 56: "reset"}
    return out if code == 0 else by_code.get(code, f"curl: {code}")


def _kafka(node: Node, probe: Probe) -> str:
    code, out, err = _in_pod(node, probe.who, kafka_command(probe), TEXT)
    return kafka_seen(probe, code, out, err)


def kafka_command(probe: Probe, broker: str = _BROKER) -> list[str]:
    """What a pod runs; a producer reads what it sends from its input."""
    action, _, topic = probe.kafka.partition(" ")
    produce = action == "produce"
    if probe.client == "java":
        where = ["--bootstrap-server", broker, "--topic", topic]
        name = "producer" if produce else "consumer"
        bounds = ["--producer-property", "max.block.ms=4000", "--producer-property",
                  "delivery.timeout.ms=4000", "--producer-property", "request.timeout.ms=3000",
                  "--producer-property", "linger.ms=0"]  # fmt: skip
        if not produce:
            bounds = ["--from-beginning", "--max-messages", "1", "--timeout-ms", "6000"]
        return kafka_broker.tool(name, *where, *bounds)
    if produce:
        return ["kcat", "-b", broker, "-P", "-t", topic, "-X", "message.timeout.ms=4000"]
    return ["kcat", "-b", broker, "-C", "-t", topic, "-o", "beginning", "-c", "1",
            "-X", "topic.metadata.refresh.fast.interval.ms=100", "-e"]  # fmt: skip


# Of kcat and of Kafka's own producer, whose exit code is 0 all the same; what else that logs as an
# error is about its JVM or machine.
_NOT_SENT = ("%error", "deliveryfailed", "errorwhensending")


def kafka_seen(probe: Probe, code: int, out: str, err: str) -> str:
    """What came of :func:`kafka_command`: allowed, denied or dropped."""
    said = (out + err).lower().replace(" ", "").replace("_", "")
    if "authorizationfailed" in said or "notauthorized" in said or "authorizationexc" in said:
        return "denied"
    produced = probe.kafka.startswith("produce") and not any(text in said for text in _NOT_SENT)
    return "allowed" if code == 0 and (produced or TEXT.strip() in out) else "dropped"
