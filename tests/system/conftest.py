"""Fixtures that several system tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.datapath_rig import Rig


@pytest.fixture
def rig(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Rig]:
    """Parametrized by a test with "bridged", its pods are at ports of a bridge."""
    made = Rig(tmp_path / "bpf", bridged=getattr(request, "param", "") == "bridged")
    made.serve(made.b.netns)
    try:
        yield made
    finally:
        made.close()
