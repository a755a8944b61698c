"""What is claimed of the Gateway API is what the official suite has found (docs/conformance)."""

from __future__ import annotations

from pathlib import Path

import yaml

from gateway_translator.features import MESH_SUPPORTED, SUPPORTED

KEPT = Path(__file__).parents[2] / "docs" / "conformance" / "report.yaml"
CORE = {  # of the profiles; a report names the others (suite.ConformanceProfile)
    "Gateway", "Mesh", "ReferenceGrant", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute",
    "GRPCRouteNamedRouteRule",  # run, and part of no profile
}  # fmt: skip


def test_what_is_claimed_is_what_was_found() -> None:
    profiles = yaml.safe_load(KEPT.read_text())["profiles"]
    results = [part["result"] for each in profiles for part in (each["core"], each["extended"])]
    assert set(results) == {"success"}
    found = {name for each in profiles for name in each["extended"]["supportedFeatures"]}
    assert found | CORE == SUPPORTED | MESH_SUPPORTED


def test_no_test_was_left_out() -> None:
    profiles = yaml.safe_load(KEPT.read_text())["profiles"]
    parts = [part for each in profiles for part in (each["core"], each["extended"])]
    assert sum(part["statistics"]["Skipped"] for part in parts) == 0
