"""One mesh for all of these tests: what one of them changes in it, it puts back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sandbox.cluster import await_rollout, install
from sandbox.istio_quickstart import apply_example, install_istio
from sandbox.mesh_probes import load, seen
from tests.system import cluster_rig
from tests.system.istio.mesh import MESH, NODES


@pytest.fixture(scope="package")
def mesh() -> Iterator[None]:
    with cluster_rig.running(MESH, len(NODES)):
        install(MESH, "istio.enabled=true")
        await_rollout(MESH)
        install_istio(MESH)
        apply_example(MESH)
        for probe in load()["03-http"]:
            assert seen(MESH, probe)[0] == probe.expect, probe
        yield
