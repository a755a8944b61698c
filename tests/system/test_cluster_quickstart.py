"""`make run RUN_ARGS="--cluster --once"`, as a user runs it."""

from __future__ import annotations

import pytest

from sandbox.control_plane import Cluster
from tests.system import cluster_rig

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(480)]


def test_the_chart_installs_every_case_is_as_expected_and_nothing_is_left() -> None:
    said = cluster_rig.quickstart(Cluster(), "--cluster", seconds=450)
    assert "40 of 40 cases as expected" in said
