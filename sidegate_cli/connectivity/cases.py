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
    web = {"http": [{"method": "GET", "path": "/public.*"},
                    {"method": "POST", "path": "/grpc.health.v1.Health/Check"}]}  # fmt: skip
    produce = {"kafka": [{"role": "produce", "topic": "orders"}]}
    return [
        Stage("no policy", (), (
            *_everywhere("pod to pod", v4, v6, "/", "200"),
            _get("service by address of DNS name", "far", service, "/", "200"),
            _get("service by short name", "near", "server", "/", "200"),
            _grpc("gRPC", "far", v4, "OK"),
        )),
        Stage("L3/L4", (policy("l4", "server", ingress=[allow("client", HTTP)]),), (
            *_everywhere("allowed client", v4, v6, "/", "200"),
            _get("another pod", "other", v4, "/", DROPPED),
            _get("another pod by service", "other", service, "/", DROPPED),
        )),
        Stage("HTTP", (policy("http", "server", ingress=[allow("client", HTTP, web)]),), (
            *_everywhere("allowed path", v4, v6, "/public/1", "200"),
            *_everywhere("denied path", v4, v6, "/private", "403"),
            _get("denied method", "near", v4, "/public", "403", "-method", "POST"),
            _get("HTTP/2, allowed", "far", v4, "/public", "200", "-http2"),
            _get("HTTP/2, denied", "far", v4, "/private", "403", "-http2"),
            _get("by service, denied", "far", service, "/private", "403"),
            _grpc("gRPC, allowed method", "far", v4, "OK"),
            _grpc("gRPC, denied method", "near", v4, "PermissionDenied", "/test.Other/Call"),
            _get("another pod", "other", v4, "/public", DROPPED),
        )),
        Stage("egress", (
            policy("egress", "client", egress=[
                {"toEndpoints": [{"matchLabels": {"app": "server"}}],
                 "toPorts": [{"ports": [{"port": str(HTTP), "protocol": "TCP"}], "rules": web}]},
                {"toEntities": ["cluster"],
                 "toPorts": [{"ports": [{"port": "53", "protocol": "ANY"}]}]},
            ]),), (
            *_everywhere("allowed path", v4, v6, "/public", "200"),
            *_everywhere("denied path", v4, v6, "/private", "403"),
            _get("by DNS name", "far", service, "/public", "200"),
            _kafka("another destination", "near", "orders", DROPPED),
        )),
        Stage("NetworkPolicy", (
            network_policy("np", [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}],
                                   "ports": [{"port": "http"}]}]),), (
            *_everywhere("allowed by named port", v4, v6, "/", "200"),
            _get("another pod", "other", v4, "/", DROPPED),
        )),
        Stage("Kafka", (policy("kafka", "kafka", ingress=[allow("client", KAFKA, produce)]),), (
            _kafka("produce to orders", "near", "orders", "allowed"),
            _kafka("produce to orders, other node", "far", "orders", "allowed"),
            _kafka("produce to audit", "near", "audit", "denied"),
            _kafka("another pod", "other", "orders", DROPPED),
        )),
    ]  # fmt: skip


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
        _get(f"{name}, same node", "near", v4, path, expected),
        _get(f"{name}, other node", "far", v4, path, expected),
    ]
    if v6:
        cases.append(_get(f"{name}, other node, IPv6", "far", f"[{v6}]", path, expected))
    return cases


def _get(name: str, pod: str, host: str, path: str, expected: str, *options: str) -> Case:
    command = ("http", "get", "-timeout", "2s", *options, f"http://{host}:{HTTP}{path}")
    return Case(name, pod, command, expected)


def _grpc(name: str, pod: str, host: str, expected: str, method: str = "") -> Case:
    options = ("-method", method) if method else ()
    return Case(name, pod, ("http", "grpc", "-timeout", "2s", *options, f"{host}:{HTTP}"), expected)


def _kafka(name: str, pod: str, topic: str, expected: str) -> Case:
    kcat = f"echo hello | kcat -b kafka:{KAFKA} -P -t {topic} -X message.timeout.ms=3000"
    return Case(name, pod, ("sh", "-c", kcat), expected)
