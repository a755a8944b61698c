"""A node without a datapath: the agent's xDS server, a supervised Envoy, an `ipcache`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from l7_proxy_ext.admin import Admin
from l7_proxy_ext.bootstrap import bootstrap
from l7_proxy_ext.supervisor import Supervisor
from sidegate_api.policy.v1 import policy_pb2 as pb
from tests.system.module_rig import LIBRARY, IpCache
from xds_server.server import XdsServer

NODE = "rig"


async def eventually(what: Callable[[], Any], seconds: float = 15) -> Any:
    """The first true answer; an AssertionError with the last one after ``seconds``."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not (answer := what()):
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"{what} still says {answer!r}")
        await asyncio.sleep(0.02)
    return answer


@dataclass
class Node:
    folder: Path
    ipcache: IpCache
    delta: bool = True
    module_dir: Path = LIBRARY.parent
    verdicts: list[pb.VerdictRecord] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = XdsServer(
            self.folder / "xds.sock", lambda batch: self.verdicts.extend(batch.records)
        )
        self.supervisor = self.another_supervisor()
        self.admin = Admin(self.folder / "envoy" / "admin.sock")

    def another_supervisor(
        self,
        changes: dict[str, Any] | None = None,
        binary: Path | None = None,
        pins: tuple[Path, ...] = (),
    ) -> Supervisor:
        return Supervisor(
            self.folder / "envoy",
            bootstrap(NODE, self.folder, delta=self.delta) | (changes or {}),
            self.module_dir,
            workers=1,
            binary=binary,
            pins=pins,
        )

    def resource(self, name: str, kind: str = "Listener") -> dict[str, Any]:
        found: dict[str, Any] = next(
            r for r in self.server.status()["resources"] if (r["name"], r["type"]) == (name, kind)
        )
        return found

    @property
    def log(self) -> str:
        return (self.folder / "envoy" / "envoy.log").read_text()

    def kill(self) -> int:
        """kill -9 of Envoy; the pid that it had."""
        pid = self.supervisor.pid
        assert pid
        os.kill(pid, signal.SIGKILL)
        return pid


@contextlib.asynccontextmanager
async def node(folder: Path, **options: Any) -> AsyncIterator[Node]:
    """Not started; Envoy and the maps are gone afterwards."""
    ipcache = IpCache(folder / "bpf")
    made = Node(folder, ipcache, **options)
    try:
        yield made
    finally:
        await made.supervisor.stop()
        await made.server.stop()
        ipcache.close()
        shutil.rmtree(folder, ignore_errors=True)
