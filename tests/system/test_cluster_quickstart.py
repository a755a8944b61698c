"""`make run RUN_ARGS="--cluster --once"`, as a user runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.control_plane import Cluster
from sandbox.node import SANDBOX_ROOT

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(480)]


def test_the_chart_installs_every_case_is_as_expected_and_nothing_is_left() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sandbox.quickstart", "--cluster", "--once"],
        check=False, capture_output=True, text=True, timeout=450,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "40 of 40 cases as expected" in done.stdout
    name = Cluster().name
    namespaces = [
        p.name for p in Path("/run/netns").iterdir() if p.name.startswith(f"sidegate-{name}")
    ]
    assert namespaces == []
    assert list(SANDBOX_ROOT.glob(f"*{name}*")) == []
