"""One cluster for all of these tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.cluster import await_rollout, install, kubectl
from tests.system import cluster_rig
from tests.system.cluster_faults.shop import (
    CLUSTER,
    ENFORCED,
    NODES,
    apply,
    pod,
    policy,
    verdicts,
)
from tests.system.cluster_rig import eventually


@pytest.fixture(scope="package", autouse=True)
def cluster() -> Iterator[None]:
    with cluster_rig.running(CLUSTER, len(NODES)):
        install(CLUSTER)
        await_rollout(CLUSTER)
        first, second = (node.name for node in NODES)
        apply(
            pod("server", "server", first, "http", "serve", "--http", ":8080"),
            pod("near", "client", first, "sleep", "infinity"),
            pod("far", "client", second, "sleep", "infinity"),
            pod("other", "other", second, "sleep", "infinity"),
            policy("/public.*"),
        )
        kubectl(CLUSTER, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=60s")
        # A pod is ready some milliseconds before the other node knows it.
        eventually(ENFORCED, verdicts)
        yield


@pytest.fixture
def api_server_away() -> Iterator[None]:
    with cluster_rig.api_server_away(CLUSTER):
        yield
