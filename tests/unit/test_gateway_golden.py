"""Resources in, IR and statuses out, in pairs that are named after what they show.

``python -m tests.unit.test_gateway_golden --regen`` writes the golden files anew.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway_translator.dump import dump_snapshot
from gateway_translator.offline import translate

GOLDEN = Path(__file__).parent.parent / "golden" / "gateway"
CASES = sorted(path.name.removesuffix(".in.yaml") for path in GOLDEN.glob("*.in.yaml"))


def outcome(name: str) -> dict[str, Any]:
    given = list(yaml.safe_load_all((GOLDEN / f"{name}.in.yaml").read_text()))
    found = translate([each for each in given if each])
    shown: dict[str, Any] = {
        "ir": dump_snapshot(found.snapshot),
        "statuses": {
            str(ref): shortened(status)
            for ref, status in sorted(found.statuses.items())
            if ref.kind != "GatewayClass"
        },
        "problems": {str(ref): text for ref, text in sorted(found.problems.items())},
    }
    return {key: value for key, value in shown.items() if value}


def shortened(value: Any) -> Any:
    """A condition in one line: type=status reason (generation): message."""
    if isinstance(value, list):
        return [shortened(each) for each in value]
    if not isinstance(value, dict):
        return value
    if "observedGeneration" in value:
        line = (
            f"{value['type']}={value['status']} {value['reason']} ({value['observedGeneration']})"
        )
        return f"{line}: {value['message']}" if value["message"] else line
    return {key: shortened(each) for key, each in value.items()}


@pytest.mark.parametrize("name", CASES)
def test_the_pair_holds(name: str) -> None:
    assert outcome(name) == yaml.safe_load((GOLDEN / f"{name}.out.yaml").read_text())


def test_no_key_material_is_shown() -> None:
    shown = "".join(path.read_text() for path in GOLDEN.glob("*.out.yaml"))
    assert "PRIVATE KEY" not in shown
    assert "BEGIN CERTIFICATE" not in shown


if __name__ == "__main__" and "--regen" in sys.argv:
    for case in CASES:
        text = yaml.safe_dump(outcome(case), sort_keys=False, width=100)
        (GOLDEN / f"{case}.out.yaml").write_text(text)
