"""What is claimed of the Gateway API is what the official suite has found (docs/conformance)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gateway_translator.features import MESH_SUPPORTED, SUPPORTED

KEPT = Path(__file__).parents[2] / "docs" / "conformance" / "report.yaml"
CORE = {  # of the profiles; a report names the others (suite.ConformanceProfile)
    "Gateway", "Mesh", "ReferenceGrant",
    "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute",
    "GRPCRouteNamedRouteRule",  # run, and part of no profile
}  # fmt: skip


def parts() -> list[dict[str, Any]]:
    """Of all profiles; one of which no test needs an extended feature has its core alone."""
    profiles = yaml.safe_load(KEPT.read_text())["profiles"]
    return [each[part] for each in profiles for part in ("core", "extended") if part in each]


def test_what_is_claimed_is_what_was_found() -> None:
    assert {each["result"] for each in parts()} == {"success"}
    found = {name for each in parts() for name in each.get("supportedFeatures", ())}
    assert found | CORE == SUPPORTED | MESH_SUPPORTED


def test_no_test_was_left_out() -> None:
    assert sum(each["statistics"]["Skipped"] for each in parts()) == 0
