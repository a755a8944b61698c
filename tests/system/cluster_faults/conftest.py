"""One cluster for all of these tests."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from sandbox.binaries import binary, build
from sandbox.cluster import CHART_SETTINGS, kubectl
from tests.system import cluster_rig
from tests.system.cluster_faults import shop
from tests.system.cluster_faults.shop import CLUSTER, NODES, SYSTEM, apply, pod, policy


@pytest.fixture(scope="package", autouse=True)
def cluster() -> Iterator[None]:
    build("helm")
    with cluster_rig.running(CLUSTER, len(NODES)):
        subprocess.run(
            [
                str(cluster_rig.CLI),
                "install",
                f"--helm={binary('helm', 'helm')}",
                f"--kubeconfig={CLUSTER.kubeconfig}",
                *(f"--set={s}" for s in CHART_SETTINGS),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )
        for what in ("ds/sidegate-agent", "deploy/sidegate-operator"):
            kubectl(CLUSTER, "-n", SYSTEM, "rollout", "status", what, "--timeout=90s")
        kubectl(CLUSTER, "wait", "--for=condition=Ready", "node", "--all", "--timeout=60s")
        first, second = (node.name for node in NODES)
        apply(
            pod("server", "server", first, "http", "serve", "--http", ":8080"),
            pod("near", "client", first, "sleep", "infinity"),
            pod("far", "client", second, "sleep", "infinity"),
            pod("other", "other", second, "sleep", "infinity"),
            policy("/public.*"),
        )
        kubectl(CLUSTER, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        yield


@pytest.fixture
def api_server_away() -> Iterator[None]:
    with shop.api_server_away():
        yield
