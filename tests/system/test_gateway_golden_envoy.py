"""Every golden pair of the translator is taken by a real Envoy, one after the other by the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway_translator.ir import Delta, Snapshot
from gateway_translator.offline import translate
from tests.system.envoy_rig import Node, eventually, node
from tests.unit.test_gateway_golden import CASES, GOLDEN
from xds_server.gateway.render import Renderer

pytestmark = pytest.mark.system


def of_case(name: str) -> Snapshot:
    given = yaml.safe_load_all((GOLDEN / f"{name}.in.yaml").read_text())
    return translate([each for each in given if each]).snapshot


def step(before: Snapshot, after: Snapshot) -> Delta:
    """From all of the one to all of the other."""
    parts: dict[str, Any] = {}
    for name in after.__dataclass_fields__:
        gone = dict.fromkeys(getattr(before, name))
        parts[name] = {**gone, **getattr(after, name)}
    return Delta(**parts)


def errors(made: Node) -> dict[str, Any]:
    return {r["name"]: e for r in made.server.status()["resources"] if (e := r["errors"])}


async def test_envoy_takes_every_golden_pair() -> None:
    async with node(Path(tempfile.mkdtemp(prefix="sgg"))) as made:
        await made.server.start()
        await made.supervisor.start()
        renderer, before = Renderer(), Snapshot()
        for name in CASES:
            after = of_case(name)
            made.server.update_resources(renderer.render(step(before, after)))
            await eventually(
                lambda: all(
                    r["acknowledged"] or r["errors"] for r in made.server.status()["resources"]
                )
            )
            assert errors(made) == {}, name
            before = after
