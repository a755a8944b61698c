"""One cluster for all of these tests: what one of them changes in it, it puts back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.cluster import kubectl
from sandbox.conformance import set_up
from tests.system import cluster_rig
from tests.system.gateway_cluster.edge import CLUSTER, NODES, apply, manifest
from tests.system.gateway_cluster.store import OBJECTS

# Beside the one of IPv4 that the suite has.
POOL = manifest(
    "cilium.io/v2", "CiliumLoadBalancerIPPool", "segment-6",
    spec={"blocks": [{"start": "2001:db8::1:0", "stop": "2001:db8::1:ff"}]},
)  # fmt: skip


@pytest.fixture(scope="package", autouse=True)
def cluster() -> Iterator[None]:
    with cluster_rig.running(CLUSTER, len(NODES)):
        set_up(CLUSTER, "experimental")
        apply(POOL, *OBJECTS)
        kubectl(CLUSTER, "wait", "--for=condition=Ready", "pod", "--all", "--timeout=120s")
        yield
