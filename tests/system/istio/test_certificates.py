"""Certificates of both ends are renewed while requests run, or expire as nobody renews them."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from sandbox.cluster import kubectl
from sandbox.execute import command_in
from sandbox.node import Node
from tests.system.cluster_rig import eventually
from tests.system.istio import pods
from tests.system.istio.mesh import MESH, applied, away, istiod, node_of, within

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

READ = ("http://brief:8080/",)
DELETE = ("--method", "DELETE", *READ)
LIFETIME = 16  # seconds; pilot-agent renews at half of it
RENEWALS = 2

_BRIEF = {
    "proxy.istio.io/config": json.dumps(
        {"proxyMetadata": {"SECRET_TTL": f"{LIFETIME}s", "SECRET_GRACE_PERIOD_RATIO": "0.5"}}
    )
}
# No connection outlives its request, so each shows the certificates of its moment.
_EACH_ANEW = {
    "apiVersion": "networking.istio.io/v1", "kind": "DestinationRule",
    "metadata": {"name": "brief"},
    "spec": {"host": "brief", "trafficPolicy": {
        "connectionPool": {"http": {"maxRequestsPerConnection": 1}}}},
}  # fmt: skip


@pytest.fixture(scope="module")
def reader(mesh: None) -> Iterator[str]:
    """The node of a pod like productpage. Its certificate is as brief as that of whom it asks."""
    idle = [{"name": "app", "image": "sidegate.test/client"}]
    made = pods.pod("reader", _BRIEF, containers=idle, serviceAccountName="productpage")
    made["metadata"]["labels"] = {"app": "productpage"}
    with pods.server("brief", _BRIEF), applied(pods.text(made, _EACH_ANEW)):
        kubectl(MESH, "wait", "--for=condition=Ready", "pod/reader", "--timeout=240s")
        node = node_of("reader")
        eventually("200", lambda: within(node, "reader", READ), 30)
        yield node


def certificate(pod: str) -> tuple[str, datetime]:
    """Serial number and end of the one that its Envoy shows now (admin interface, ``/certs``)."""
    asked = ["curl", "-sf", "http://127.0.0.1:15000/certs"]
    done = subprocess.run(
        command_in(Node(node_of(pod)), pod, asked), check=True, capture_output=True, text=True
    )
    shown = [each for group in json.loads(done.stdout)["certificates"]
             for each in group.get("cert_chain", [])
             if any("uri" in name for name in each.get("subject_alt_names", []))]  # fmt: skip
    last = max(shown, key=lambda each: str(each["expiration_time"]))
    return last["serial_number"], datetime.fromisoformat(last["expiration_time"])


def test_no_request_is_lost_or_let_in_while_certificates_are_renewed(reader: str) -> None:
    serials: dict[str, set[str]] = {"brief": set(), "reader": set()}
    deadline = time.monotonic() + 10 * LIFETIME
    while min(map(len, serials.values())) <= RENEWALS:
        assert time.monotonic() < deadline, serials
        for pod, seen in serials.items():
            seen.add(certificate(pod)[0])
        for _ in range(5):
            assert within(reader, "reader", READ) == "200"
            assert within(reader, "reader", DELETE) == "403"


def test_an_expired_certificate_gets_no_answer(reader: str) -> None:
    with away(*istiod()):
        ends = max(certificate(pod)[1] for pod in ("brief", "reader"))
        time.sleep(max(0, (ends - datetime.now(UTC)).total_seconds()) + 1)
        for ask in (READ, DELETE):
            assert within(reader, "reader", ask) in ("503", "none")
        assert max(certificate(pod)[1] for pod in ("brief", "reader")) < datetime.now(UTC)
        others = within(reader, "reader", ("http://reviews:8080/reviews/1",))
        assert others in ("503", "none"), "whose certificate is valid, but not the reader's"
        node = node_of("productpage")
        assert within(node, "productpage", ("http://reviews:8080/reviews/1",)) == "200"
    eventually("200", lambda: within(reader, "reader", READ), 60)
    assert within(reader, "reader", DELETE) == "403"
