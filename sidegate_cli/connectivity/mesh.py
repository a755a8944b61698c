"""The same inside an Istio mesh: pods with a sidecar, and pods without one beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sidegate_cli.connectivity import objects
from sidegate_cli.connectivity.cases import DROPPED, WEB, Case, Stage, get, grpc, kafka, kafka_stage
from sidegate_cli.connectivity.objects import (
    HTTP,
    Images,
    allow,
    client,
    policy,
    server,
    service,
)

INJECTED = {"istio-injection": "enabled"}
"""Labels of the namespace."""

_OUTSIDE = {"sidecar.istio.io/inject": "false"}
_DRIVER = "csi.sidegate.io"


def pods(images: Images, nodes: Sequence[str]) -> list[dict[str, Any]]:
    """A client and a server without a sidecar."""
    return [
        client("plain", {"app": "client", **_OUTSIDE}, nodes[-1], images),
        server("outside", {"app": "outside", **_OUTSIDE}, nodes[-1], images),
    ]


def services() -> list[dict[str, Any]]:
    """All that there are, of one family: a mesh that is not dual-stack sends to addresses of the
    other too, and intercepts nothing there."""
    one = "SingleStack"
    return [
        *objects.services(one),
        service("outside", HTTP, "http", families=one),
        # A port of HTTP/1 loses trailers.
        service("server-grpc", HTTP, "grpc", app="server", families=one),
    ]


def without_module(running: Iterable[dict[str, Any]]) -> list[str]:
    """Names of those that should have our module in their sidecar, and have not."""
    return [
        pod["metadata"]["name"]
        for pod in running
        if not _OUTSIDE.items() <= (pod["metadata"].get("labels") or {}).items()
        and not any(
            (volume.get("csi") or {}).get("driver") == _DRIVER
            for volume in pod["spec"].get("volumes") or []
        )
    ]


def stages() -> list[Stage]:
    """All by Service: that is how pods of a mesh know each other."""
    web = policy("http", "server", ingress=[allow("client", HTTP, WEB)])
    proven = {**allow("client", HTTP, WEB), "authentication": {"mode": "required"}}
    return [
        Stage("no policy", (_mtls("PERMISSIVE"),), (
            *_sidecars("sidecar to sidecar", "/", "200"),
            get("plain pod to sidecar", "plain", "server", "/", "200"),
            get("sidecar to plain pod", "near", "outside", "/", "200"),
        )),
        Stage("L3/L4", (_mtls("PERMISSIVE"), policy("l4", "server",
                                                    ingress=[allow("client", HTTP)])), (
            *_sidecars("allowed client", "/", "200"),
            get("allowed plain client", "plain", "server", "/", "200"),
            get("another pod", "other", "server", "/", DROPPED),
        )),
        Stage("HTTP", (_mtls("PERMISSIVE"), web), (
            *_sidecars("allowed path", "/public/1", "200"),
            *_sidecars("denied path", "/private", "403"),
            get("denied method", "near", "server", "/public", "403", "-method", "POST"),
            get("HTTP/2, allowed", "far", "server", "/public", "200", "-http2"),
            get("HTTP/2, denied", "far", "server", "/private", "403", "-http2"),
            grpc("gRPC, allowed method", "far", "server-grpc", "OK"),
            grpc("gRPC, denied method", "near", "server-grpc", "PermissionDenied",
                 "/test.Other/Call"),
            get("plain client, allowed path", "plain", "server", "/public", "200"),
            get("plain client, denied path", "plain", "server", "/private", "403"),
            get("another pod", "other", "server", "/public", DROPPED),
        )),
        Stage("HTTP in strict mTLS", (_mtls("STRICT"), web), (
            *_sidecars("allowed path", "/public/1", "200"),
            *_sidecars("denied path", "/private", "403"),
            get("plain client", "plain", "server", "/public", DROPPED),
        )),
        Stage("authentication", (_mtls("PERMISSIVE"), policy("proven", "server",
                                                             ingress=[proven])), (
            *_sidecars("shows a certificate", "/public", "200"),
            get("shows one, denied path", "near", "server", "/private", "403"),
            get("shows none", "plain", "server", "/public", "403"),
        )),
        Stage("egress", (_egress(),), (
            *_sidecars("sidecar, allowed path", "/public", "200"),
            *_sidecars("sidecar, denied path", "/private", "403"),
            get("plain pod, allowed path", "near", "outside", "/public", "200"),
            get("plain pod, denied path", "near", "outside", "/private", "403"),
            kafka("another destination", "near", "orders", DROPPED),
        )),
        kafka_stage(),
    ]  # fmt: skip


def _sidecars(name: str, path: str, expected: str) -> list[Case]:
    return [
        get(f"{name}, same node", "near", "server", path, expected),
        get(f"{name}, other node", "far", "server", path, expected),
    ]


def _mtls(mode: str) -> dict[str, Any]:
    """Of the whole namespace, whatever the mesh says."""
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "PeerAuthentication",
        "metadata": {"name": "connectivity"},
        "spec": {"mtls": {"mode": mode}},
    }


def _egress() -> dict[str, Any]:
    """Besides the servers: names, and what sidecars need of istiod."""
    control = [{"port": "53", "protocol": "ANY"}, {"port": "15012", "protocol": "TCP"}]
    rules: list[dict[str, Any]] = [
        {"toEndpoints": [{"matchLabels": {"app": name}} for name in ("server", "outside")],
         "toPorts": [{"ports": [{"port": str(HTTP), "protocol": "TCP"}], "rules": WEB}]},
        {"toEntities": ["cluster"], "toPorts": [{"ports": control}]},
    ]  # fmt: skip
    return policy("egress", "client", egress=rules)
