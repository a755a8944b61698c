"""What docs/conformance says of Ingresses is what tests/system/gateway_cluster asks of them."""

from __future__ import annotations

from pathlib import Path

from tests.system.gateway_cluster.ingress_table import load

PAGE = Path(__file__).parents[2] / "docs" / "conformance" / "ingress.md"


def test_the_page_has_a_row_for_each_request_of_the_tables() -> None:
    table = [*load("ingress_conformance"), *load("ingress_annotations")]
    wanted = [(group["feature"], each["says"]) for group in table for each in group["requests"]]
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = [(feature.strip("`"), says) for feature, says, *_ in cells]
    assert [row for row in rows if row[0] not in ("feature", "---")] == wanted
