"""Looks at the configuration of the node's sidecars, for as long as they are there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from node_agent.peer_process import Process
from node_agent.proof.admin import Admin
from node_agent.proof.prove import Proof, nothing

log = structlog.get_logger(__name__)

# Changes come in bursts; in between, looking is most of what an idle proxy's main thread does.
PERIOD_SECONDS, CALM_PERIOD_SECONDS = 0.5, 2.0
BURST_SECONDS = 10.0
# A busy proxy may answer late; one that does not answer for so long proves nothing any more.
PATIENCE_SECONDS = 3.0


class Prover:
    """``tell`` is called for an endpoint whose proof is another. All methods belong to the event
    loop's thread."""

    def __init__(self, tell: Callable[[int], None]) -> None:
        self._tell = tell
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self.proofs: dict[int, Proof] = {}

    def watch(self, endpoint_id: int, process: Process) -> None:
        """This is its proxy now. Until the first look nothing is told."""
        self.forget(endpoint_id)
        self._tasks[endpoint_id] = asyncio.create_task(self._watch(endpoint_id, process))

    def forget(self, endpoint_id: int) -> None:
        """It has no proxy any more; no such endpoint is no error."""
        self.proofs.pop(endpoint_id, None)
        if task := self._tasks.pop(endpoint_id, None):
            task.cancel()

    def stop(self) -> None:
        """What was told stays so."""
        for endpoint_id in list(self._tasks):
            self.forget(endpoint_id)

    async def _watch(self, endpoint_id: int, process: Process) -> None:
        admin, now = Admin(process), asyncio.get_running_loop().time
        answered = moved = now()
        try:
            while True:
                proof: Proof | None = None
                try:
                    proof = await asyncio.to_thread(admin.changed)
                    answered = now()
                except PermissionError as error:
                    proof = nothing(str(error))
                except OSError as error:
                    moved = now()
                    if moved - answered > PATIENCE_SECONDS:
                        proof = nothing(f"its admin interface does not answer: {error}")
                except Exception as error:  # a tenant shapes what is read: the watch must live on
                    log.error("a proof could not be made", endpoint=endpoint_id, exc_info=error)
                    proof = nothing(f"its configuration cannot be understood: {error!r}")
                if proof is not None:
                    moved = now()
                    if proof != self.proofs.get(endpoint_id):
                        self.proofs[endpoint_id] = proof
                        self._tell(endpoint_id)
                calm = now() - moved > BURST_SECONDS
                await asyncio.sleep(CALM_PERIOD_SECONDS if calm else PERIOD_SECONDS)
        finally:
            admin.close()
