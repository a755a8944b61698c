"""What is tried, stage by stage: the policies of a stage, and what each pod must see then."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sidegate_cli.connectivity.objects import (
    HTTP,
    KAFKA,
    allow,
    network_policy,
    policy,
)

DROPPED = "no answer"

WEB: dict[str, Any] = {
    "http": [
        {"method": "GET", "path": "/public.*"},
        {"method": "POST", "path": "/grpc.health.v1.Health/Check"},
    ]
}
PRODUCE: dict[str, Any] = {"kafka": [{"role": "produce", "topic": "orders"}]}


@dataclass(frozen=True, slots=True)
class Case:
    """``command`` runs in ``pod``; ``expected`` is what :func:`seen` must make of it."""

    name: str
    pod: str
    command: tuple[str, ...]
    expected: str


@dataclass(frozen=True, slots=True)
class Stage:
    name: str
    policies: tuple[dict[str, Any], ...]
    cases: tuple[Case, ...]


def stages(addresses: Mapping[str, list[str]], namespace: str) -> list[Stage]:
    """``addresses`` of the pods, by name."""
    v4 = next(a for a in addresses["server"] if ":" not in a)
    v6 = next((a for a in addresses["server"] if ":" in a), "")
    service = f"server.{namespace}.svc.cluster.local"
    return [
        Stage("no policy", (), (
            *_everywhere("pod to pod", v4, v6, "/", "200"),
            get("service by address of DNS name", "far", service, "/", "200"),
            get("service by short name", "near", "server", "/", "200"),
            grpc("gRPC", "far", v4, "OK"),
        )),
        Stage("L3/L4", (policy("l4", "server", ingress=[allow("client", HTTP)]),), (
            *_everywhere("allowed client", v4, v6, "/", "200"),
            get("another pod", "other", v4, "/", DROPPED),
            get("another pod by service", "other", service, "/", DROPPED),
        )),
        Stage("HTTP", (policy("http", "server", ingress=[allow("client", HTTP, WEB)]),), (
            *_everywhere("allowed path", v4, v6, "/public/1", "200"),
            *_everywhere("denied path", v4, v6, "/private", "403"),
            get("denied method", "near", v4, "/public", "403", "-method", "POST"),
            get("HTTP/2, allowed", "far", v4, "/public", "200", "-http2"),
            get("HTTP/2, denied", "far", v4, "/private", "403", "-http2"),
            get("by service, denied", "far", service, "/private", "403"),
            grpc("gRPC, allowed method", "far", v4, "OK"),
            grpc("gRPC, denied method", "near", v4, "PermissionDenied", "/test.Other/Call"),
            get("another pod", "other", v4, "/public", DROPPED),
        )),
        Stage("egress", (
            policy("egress", "client", egress=[
                {"toEndpoints": [{"matchLabels": {"app": "server"}}],
                 "toPorts": [{"ports": [{"port": str(HTTP), "protocol": "TCP"}], "rules": WEB}]},
                {"toEntities": ["cluster"],
                 "toPorts": [{"ports": [{"port": "53", "protocol": "ANY"}]}]},
            ]),), (
            *_everywhere("allowed path", v4, v6, "/public", "200"),
            *_everywhere("denied path", v4, v6, "/private", "403"),
            get("by DNS name", "far", service, "/public", "200"),
            kafka("another destination", "near", "orders", DROPPED),
        )),
        Stage("NetworkPolicy", (
            network_policy("np", [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
                                   "ports": [{"port": "http"}]}]),), (
            *_everywhere("allowed by named port", v4, v6, "/", "200"),
            get("another pod", "other", v4, "/", DROPPED),
        )),
        kafka_stage(),
    ]  # fmt: skip


def kafka_stage() -> Stage:
    """The same with and without a mesh."""
    return Stage("Kafka", (policy("kafka", "kafka", ingress=[allow("client", KAFKA, PRODUCE)]),), (
        kafka("produce to orders", "near", "orders", "allowed"),
        kafka("produce to orders, other node", "far", "orders", "allowed"),
        kafka("produce to audit", "near", "audit", "denied"),
        kafka("another pod", "other", "orders", DROPPED),
    ))  # fmt: skip


def seen(code: int, output: str) -> str:
    """An HTTP status, a gRPC code's name, allowed, denied, or :data:`DROPPED`."""
    if "uthorization failed" in output or "not authorized" in output:
        return "denied"
    for line in reversed(output.strip().splitlines()):
        try:
            answer = json.loads(line)
        except ValueError:
            continue
        if isinstance(answer, dict) and "code" in answer:
            gone = ("Unavailable", "DeadlineExceeded")
            return DROPPED if answer["code"] in gone else str(answer["code"])
        if isinstance(answer, dict) and "status" in answer:
            return str(answer["status"] or DROPPED)
    return "allowed" if code == 0 else DROPPED


def _everywhere(name: str, v4: str, v6: str, path: str, expected: str) -> list[Case]:
    cases = [
        get(f"{name}, same node", "near", v4, path, expected),
        get(f"{name}, other node", "far", v4, path, expected),
    ]
    if v6:
        cases.append(get(f"{name}, other node, IPv6", "far", f"[{v6}]", path, expected))
    return cases


def get(name: str, pod: str, host: str, path: str, expected: str, *options: str) -> Case:
    command = ("http", "get", "-timeout", "2s", *options, f"http://{host}:{HTTP}{path}")
    return Case(name, pod, command, expected)


def grpc(name: str, pod: str, host: str, expected: str, method: str = "") -> Case:
    options = ("-method", method) if method else ()
    return Case(name, pod, ("http", "grpc", "-timeout", "2s", *options, f"{host}:{HTTP}"), expected)


def kafka(name: str, pod: str, topic: str, expected: str) -> Case:
    kcat = f"echo hello | kcat -b kafka:{KAFKA} -P -t {topic} -X message.timeout.ms=3000"
    return Case(name, pod, ("sh", "-c", kcat), expected)
