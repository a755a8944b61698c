"""The Gateway API as far as it is installed: some of its kinds, one channel, then the other."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from sandbox.binaries import binary
from sandbox.cluster import SYSTEM, await_rollout, kubectl
from sandbox.conformance import CLASS
from tests.system import cluster_rig
from tests.system.cluster_rig import eventually
from tests.system.gateway_cluster.edge import (
    CLUSTER,
    GATEWAY_API,
    apply,
    ask,
    delete,
    gateway_addresses,
    manifest,
    status,
)

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

GROUP = "gateway.networking.k8s.io"
# As in releases that had them in the experimental channel only.
ABSENT = ("listenersets", "tcproutes", "udproutes", "backendtlspolicies")
PARTS = {"agent": "ds/sidegate-agent", "operator": "deploy/sidegate-operator"}
ABSENCE = "not installed, done without"
_ASKED_AGAIN_SECONDS = 12  # for what is not there they look every ten

LATE = [
    manifest(
        GATEWAY_API, "Gateway", "late",
        spec={
            "gatewayClassName": CLASS,
            "listeners": [{"name": "tcp", "port": 9000, "protocol": "TCP"}],
        },
    ),
    manifest(
        GATEWAY_API, "TCPRoute", "late",
        spec={
            "parentRefs": [{"name": "late"}],
            "rules": [{"backendRefs": [{"name": "store", "port": 80}]}],
        },
    ),
]  # fmt: skip


def install(channel: str, *plurals: str) -> None:
    for plural in plurals:
        file = binary("gateway-conformance", channel) / f"{GROUP}_{plural}.yaml"
        kubectl(CLUSTER, "apply", "--server-side", "-f", str(file))


@pytest.fixture
def some_kinds() -> Iterator[None]:
    """Agents and operators have started where there were no others."""
    kubectl(CLUSTER, "delete", "crd", *(f"{plural}.{GROUP}" for plural in ABSENT))
    for part in PARTS.values():
        kubectl(CLUSTER, "-n", SYSTEM, "rollout", "restart", part)
    await_rollout(CLUSTER)
    try:
        yield
    finally:
        install("experimental", *ABSENT)
        delete(*LATE)


def logs(part: str) -> list[str]:
    """Of each container of a part, since it started."""
    wanted = f"app.kubernetes.io/component={part}"
    pods = json.loads(kubectl(CLUSTER, "-n", SYSTEM, "get", "pods", "-l", wanted, "-o", "json"))
    return [
        kubectl(CLUSTER, "-n", SYSTEM, "logs", each["metadata"]["name"], "-c", part)
        for each in pods["items"]
        if not each["metadata"].get("deletionTimestamp")
    ]


def absences(log: str) -> Counter[str]:
    """How often each kind was said not to be there."""
    lines = (json.loads(line) for line in log.splitlines() if ABSENCE in line)
    return Counter(line["resource"] for line in lines)


def test_without_some_kinds_all_others_are_served(some_kinds: None) -> None:
    time.sleep(_ASKED_AGAIN_SECONDS)
    once = Counter(ABSENT)
    assert [absences(log) for log in logs("agent")] == [once, once]
    assert once in [absences(log) for log in logs("operator")]
    asked = [str(cluster_rig.CLI), "status", "--wait", f"--kubeconfig={CLUSTER.kubeconfig}"]
    done = subprocess.run(asked, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "no problems"), done.stdout
    eventually(True, lambda: bool(gateway_addresses("store")), 60)
    (address, *_) = gateway_addresses("store")
    eventually(200, lambda: ask(address, "http://store.test/").status, 60)
    install("experimental", *ABSENT)
    apply(*LATE)
    eventually(True, lambda: bool(gateway_addresses("late")), 60)
    (address, *_) = gateway_addresses("late")
    eventually(200, lambda: ask(address, "http://store.test:9000/").status, 60)


def claimed() -> set[str]:
    features = status("gatewayclass", CLASS).get("supportedFeatures") or ()
    return {each["name"] for each in features}


@pytest.fixture
def standard_channel() -> Iterator[None]:
    """Of HTTPRoutes. The way back is what an admission policy of the API's own forbids."""
    guard = f"safe-upgrades.{GROUP}"
    install("standard", "httproutes")
    try:
        yield
    finally:
        kubectl(CLUSTER, "delete", "validatingadmissionpolicybinding", guard)
        eventually(True, lambda: installed("experimental", "httproutes"), 60)
        install("experimental", "vap_safeupgrades")


def installed(channel: str, plural: str) -> bool:
    """Whether the API server takes it now."""
    try:
        install(channel, plural)
    except subprocess.CalledProcessError:
        return False
    return True


def test_what_the_standard_channel_lacks_is_not_claimed(standard_channel: None) -> None:
    eventually(False, lambda: "HTTPRouteRetry" in claimed(), 30)
    assert "HTTPRouteRequestTimeout" in claimed()
