"""The official suite of the Gateway API, unmodified, finds what docs/conformance says of us."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.test_gateway_features import KEPT

pytestmark = [
    pytest.mark.system, pytest.mark.slow, pytest.mark.conformance, pytest.mark.timeout(1500),
]  # fmt: skip


def profiles(file: Path) -> dict[str, Any]:
    """What each profile came to, by its name."""
    found = yaml.safe_load(file.read_text())["profiles"]
    return {each["name"]: (each["core"], each.get("extended")) for each in found}


def test_the_suite_finds_what_the_kept_report_says(tmp_path: Path) -> None:
    report, log = tmp_path / "report.yaml", tmp_path / "suite.log"
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", "sandbox.conformance", f"--report={report}",
             f"--logs={tmp_path / 'logs'}"],
            check=False, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    lines = log.read_text(errors="replace").splitlines()
    failed = [line for line in lines if "--- FAIL" in line]
    assert done.returncode == 0, "\n".join([f"see {log}", *(failed or lines[-20:])])
    assert profiles(report) == profiles(KEPT)
    # An agent that ended and came back may have been in nobody's way.
    parts = (tmp_path / "logs").glob("*/pods/sidegate-system_*/*/log")
    assert [each for each in parts if '"level": "critical"' in each.read_text()] == []
