"""Requests that fail while what they depend on changes 20 times a second, for a minute."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from bench.figures import Figure, figure
from tests.system.gateway_churn import churn
from tests.system.sandbox_rig import Sandbox

_SECONDS = 60.0
_PODS = Path(__file__).parents[2] / "examples" / "gateway" / "shop.yaml"


def failures() -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(_PODS, folder)
        sandbox = Sandbox(Path(folder), "benchgw")
        try:
            seen = churn(sandbox, _SECONDS)
        finally:
            sandbox.close()
    return [
        figure(
            "failed requests while routes, certificates and endpoints change for a minute",
            [float(seen.failed)],
            f"of {seen.ok + seen.failed:,}",
            against=f"{seen.changes / seen.seconds:.0f} changes a second",
            bar="== 0",
        )
    ]
