"""Envoy outlives the agent, comes back when it is killed, and says why it does not start."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from l7_proxy_ext.process import Detached
from l7_proxy_ext.supervisor import envoy_binary
from tests.system.envoy_rig import eventually, node
from tests.system.module_rig import ROOT

pytestmark = pytest.mark.system


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: Unix sockets live in it."""
    with tempfile.TemporaryDirectory(prefix="sgx") as path:
        yield Path(path)


async def test_envoy_is_back_after_kill_9(folder: Path) -> None:
    async with node(folder) as rig:
        await rig.supervisor.start()
        killed = rig.kill()
        await eventually(lambda: rig.supervisor.pid not in (None, killed), 3)
        status = rig.supervisor.status()
        assert (status["state"], status["restarts"]) == ("running", 1)
        assert status["last_exit"] == "signal SIGKILL"


async def test_it_is_back_though_somebody_took_its_log_away(folder: Path) -> None:
    async with node(folder) as rig:
        await rig.supervisor.start()
        (folder / "envoy" / "envoy.log").unlink()
        killed = rig.kill()
        await eventually(lambda: rig.supervisor.pid not in (None, killed), 3)
        (said,) = rig.supervisor.status()["errors"]
        assert "its log cannot be read" in said


async def test_the_next_agent_adopts_the_running_envoy(folder: Path) -> None:
    async with node(folder) as rig:
        await rig.supervisor.start()
        pid = rig.supervisor.pid
        assert pid
        assert os.getsid(pid) == pid, "Envoy must not be in the agent's session"
        await rig.supervisor.detach()

        rig.supervisor = rig.another_supervisor()
        await rig.supervisor.start()
        assert (rig.supervisor.pid, rig.supervisor.status()["adopted"]) == (pid, True)

        rig.kill()
        await eventually(lambda: rig.supervisor.pid not in (None, pid), 3)
        assert not rig.supervisor.status()["adopted"]


AGENT = """
import asyncio, json, sys
from pathlib import Path
from l7_proxy_ext.bootstrap import bootstrap
from l7_proxy_ext.supervisor import Supervisor
from tests.system.envoy_rig import NODE
folder, modules = map(Path, sys.argv[1:])
async def main():
    await Supervisor(folder / "envoy", bootstrap(NODE, folder), modules, workers=1).start()
    print("started", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""


async def test_envoy_outlives_kill_9_of_its_agent(folder: Path) -> None:
    async with node(folder) as rig:
        agent = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", AGENT, str(folder), str(rig.module_dir)),
            stdout=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        assert agent.stdout
        while await agent.stdout.readline() != b"started\n":
            assert agent.returncode is None
        agent.kill()
        await agent.wait()
        left = Detached.load(folder / "envoy" / "envoy.pid")
        assert left, "Envoy died with its agent"

        await rig.supervisor.start()
        assert (rig.supervisor.pid, rig.supervisor.status()["adopted"]) == (left.pid, True)
        files = (Path("/proc") / str(left.pid) / "limits").read_text().split("Max open files")[1]
        soft, hard = files.split()[:2]
        assert soft == hard
        rig.kill()
        await eventually(lambda: rig.supervisor.pid not in (None, left.pid), 3)


async def test_an_envoy_of_another_configuration_is_replaced(folder: Path) -> None:
    async with node(folder) as rig:
        await rig.supervisor.start()
        left = Detached.load(folder / "envoy" / "envoy.pid")
        assert left
        await rig.supervisor.detach()

        rig.supervisor = rig.another_supervisor(changes={"stats_flush_interval": "60s"})
        await rig.supervisor.start()
        assert rig.supervisor.pid != left.pid
        assert not left.alive()


async def test_an_envoy_with_maps_that_were_replaced_is_not_kept(folder: Path) -> None:
    """It would judge by identities that nobody writes any more."""
    pin, fresh = folder / "ipcache", folder / "fresh"
    pin.touch()
    async with node(folder) as rig:
        rig.supervisor = rig.another_supervisor(pins=(pin,))
        await rig.supervisor.start()
        first = rig.supervisor.pid
        assert not rig.supervisor.is_outdated()
        fresh.touch()
        fresh.replace(pin)
        assert rig.supervisor.is_outdated()
        await rig.supervisor.detach()
        rig.supervisor = rig.another_supervisor(pins=(pin,))
        await rig.supervisor.start()
        assert rig.supervisor.pid != first
        assert not rig.supervisor.is_outdated()


async def test_a_reused_pid_is_not_adopted(folder: Path) -> None:
    async with node(folder) as rig:
        (folder / "envoy").mkdir()
        config = rig.supervisor._config()
        Detached(os.getpid(), 1, config).save(folder / "envoy" / "envoy.pid")
        await rig.supervisor.start()
        assert rig.supervisor.pid != os.getpid()


async def test_a_missing_module_is_said(folder: Path) -> None:
    async with node(folder, module_dir=folder) as rig:
        await rig.supervisor.start()
        await eventually(lambda: rig.supervisor.status()["restarts"] >= 2)
        assert any("libsidegate.so" in line for line in rig.supervisor.status()["errors"])


async def test_a_binary_that_is_gone_for_a_while_is_said_and_overcome(folder: Path) -> None:
    async with node(folder) as rig:
        binary = folder / "envoy-binary"
        binary.symlink_to(envoy_binary())
        rig.supervisor = rig.another_supervisor(binary=binary)
        await rig.supervisor.start()
        binary.rename(folder / "away")
        rig.kill()
        await eventually(lambda: "cannot start Envoy" in str(rig.supervisor.status()["errors"]))
        assert rig.supervisor.status()["state"] == "restarting"
        (folder / "away").rename(binary)
        await eventually(lambda: rig.supervisor.status()["state"] == "running")


async def test_stop_ends_envoy(folder: Path) -> None:
    async with node(folder) as rig:
        await rig.supervisor.start()
        left = Detached.load(folder / "envoy" / "envoy.pid")
        assert left
        await rig.supervisor.stop()
        assert not left.alive()
        assert not (folder / "envoy" / "envoy.pid").exists()
        assert rig.supervisor.status()["state"] == "stopped"
