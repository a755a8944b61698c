"""The wall clock of a sidecar jumps: policy and lease know nothing of it."""

from __future__ import annotations

import asyncio
import email.utils
import subprocess
import time
from pathlib import Path

import pytest

from sidegate_api.policy.v1 import policy_pb2 as pb
from tests.system.sidecar_rig import OTHER, OWNER, Sidecar, echoes, sidecar, within

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

_SOURCE = Path(__file__).with_name("wall_clock.c")
_YEAR = 365 * 24 * 3600


class WallClock:
    """Of whoever has :attr:`environment`."""

    def __init__(self, folder: Path) -> None:
        self._offset, library = folder / "offset", folder / "wall_clock.so"
        self.jump(0)
        subprocess.run(["clang", "-shared", "-fPIC", "-O2", "-o", library, _SOURCE], check=True)
        self.environment = {"LD_PRELOAD": str(library), "WALL_CLOCK": str(self._offset)}

    def jump(self, seconds: int) -> None:
        """In place: whoever has the file mapped sees it."""
        with self._offset.open("r+b" if self._offset.exists() else "w+b") as file:
            file.write(seconds.to_bytes(8, "little", signed=True))


async def ahead(made: Sidecar) -> float:
    """Seconds by which Envoy's clock, as its answers tell it, is before ours."""
    date = (await made.client.get("/")).headers["date"]
    return email.utils.parsedate_to_datetime(date).timestamp() - time.time()


@pytest.mark.parametrize("jump", [_YEAR, -_YEAR], ids=["ahead", "back"])
async def test_a_jump_of_the_wall_clock_changes_nothing(tmp_path: Path, jump: int) -> None:
    clock = WallClock(tmp_path)
    async with sidecar(tmp_path, clock.environment) as made:
        await made.agent.push(pb.PortRule(peers=[OWNER], rule="r"))
        stream = await made.connect()
        assert await made.get() == 200
        assert await echoes(stream)
        clock.jump(jump)
        async with asyncio.timeout(20):  # it reads its clock for answers twice a second
            while abs(await ahead(made) - jump) > 60:
                pass
        before = made.held
        await within(lambda: made.held > before)
        assert 0 <= time.monotonic_ns() - made.held < 1e9
        assert await made.get() == 200
        assert await echoes(stream)
        assert await echoes(await made.connect())
        await made.agent.push(pb.PortRule(peers=[OTHER], rule="r"))
        assert await made.get() == 403
        assert not await echoes(stream)
