"""Changes under live traffic: none costs a request, and what is revoked is served no more."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.images import http_peer
from tests.system.gateway_churn import churn
from tests.system.sandbox_rig import Sandbox

pytestmark = [pytest.mark.system, pytest.mark.timeout(180)]

EXAMPLE = Path(__file__).parents[2] / "examples" / "gateway" / "shop.yaml"
GATEWAY_API = "gateway.networking.k8s.io/v1"
PORT = 8000


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    folder = tmp_path_factory.mktemp("resources")
    shutil.copy(EXAMPLE, folder)
    made = Sandbox(folder, "gwchg")
    yield made
    made.close()


def test_no_request_fails_while_routes_certificates_and_endpoints_change(sandbox: Sandbox) -> None:
    seen = churn(sandbox, 10)
    assert seen.failures == {}
    assert seen.ok > 500
    assert seen.changes > 50
    assert len(seen.clients) == 8
    for kind, client in seen.clients.items():
        assert client["ok"] > 10, kind
        tls, tcp = kind.startswith(("HTTP/3", "HTTP/2", "HTTP/1.1 over")), "HTTP/3" not in kind
        assert client["alt-svc"] == (['h3=":443"; ma=86400'] if tls and tcp else ["None"]), kind
        if tls and kind.endswith("new"):
            assert client["certificates"] > 1, kind


def revocable(service_namespace: str = "default") -> list[dict[str, Any]]:
    """A Gateway of its own with a route to shop-v1."""
    listener = {"name": "http", "port": PORT, "protocol": "HTTP"}
    backend = {"name": "shop-v1", "port": 80, "namespace": service_namespace}
    return [
        {
            "apiVersion": GATEWAY_API,
            "kind": "GatewayClass",
            "metadata": {"name": "revoked"},
            "spec": {"controllerName": "sidegate.io/gateway-controller"},
        },
        {
            "apiVersion": GATEWAY_API,
            "kind": "Gateway",
            "metadata": {"name": "revoked", "namespace": "edge"},
            "spec": {"gatewayClassName": "revoked", "listeners": [listener]},
        },
        {
            "apiVersion": GATEWAY_API,
            "kind": "HTTPRoute",
            "metadata": {"name": "revoked", "namespace": "edge"},
            "spec": {
                "parentRefs": [{"name": "revoked"}],
                "rules": [{"backendRefs": [backend]}],
            },
        },
        {
            "apiVersion": "gateway.networking.k8s.io/v1beta1",
            "kind": "ReferenceGrant",
            "metadata": {"name": "revoked", "namespace": "default"},
            "spec": {
                "from": [
                    {
                        "group": "gateway.networking.k8s.io",
                        "kind": "HTTPRoute",
                        "namespace": "edge",
                    }
                ],
                "to": [{"group": "", "kind": "Service"}],
            },
        },
    ]


@pytest.mark.parametrize(("kind", "status"), [("HTTPRoute", 404), ("ReferenceGrant", 500)])
def test_what_is_revoked_is_served_no_more_within_a_second(
    sandbox: Sandbox, kind: str, status: int
) -> None:
    """On a connection that was there before, which is kept."""
    objects = revocable()
    sandbox.apply(*objects)
    command = [str(http_peer()), "hold", "-duration", "60s", f"http://127.0.0.1:{PORT}/"]
    holding = subprocess.Popen(sandbox.node.inside(command), stdout=subprocess.PIPE, text=True)
    assert holding.stdout
    try:
        for line in holding.stdout:
            if (before := json.loads(line))["status"] == 200:
                break
        begin = time.monotonic_ns()
        sandbox.delete(next(each for each in objects if each["kind"] == kind))
        after = json.loads(holding.stdout.readline())
    finally:
        holding.kill()
        holding.wait()
    assert after["status"] == status
    assert after["dials"] == before["dials"]
    assert (after["t"] - begin) / 1e9 <= 1
    sandbox.delete(*objects)
