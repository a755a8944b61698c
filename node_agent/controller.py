"""From a changed resource or endpoint to enforcement, in the order that never opens a gap.

One change is realised at a time: the repository says which endpoints it concerns, each of those
gets its new policy in the module first and in the kernel after the acknowledgement. Addresses
change identity after every policy knows the new identity, and lose it before any policy forgets it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from datapath.facade import Datapath
from policy_engine.model import Action, EndpointPolicy, PolicyEntry
from policy_engine.repository import PolicyRepository

log = structlog.get_logger(__name__)

ACKNOWLEDGE_SECONDS = 1.0


class PolicySink(Protocol):
    """The part of the xDS server that carries policies to the module."""

    def publish_policy(self, policy: EndpointPolicy) -> None: ...
    def remove_policy(self, endpoint_id: int) -> None: ...
    async def policy_acknowledged(
        self,
        endpoint_id: int,
        revision: int,
        timeout: float,  # noqa: ASYNC109
    ) -> bool: ...


@dataclass(slots=True)
class Realised:
    """What one change cost. ``seconds`` runs from the change to the last map write."""

    endpoints: int = 0
    map_writes: int = 0
    seconds: float = 0.0
    unacknowledged: list[int] = field(default_factory=list)


class Controller:
    """Holds what each endpoint's enforcement is at, and moves it to what the repository says.

    ``changed`` is set whenever what there is to say of policies may be something else; whoever
    waits for it holds ``lock`` while it looks.
    """

    def __init__(self, repository: PolicyRepository, datapath: Datapath, sink: PolicySink) -> None:
        self._repository = repository
        self._datapath = datapath
        self._sink = sink
        self._realised: dict[int, EndpointPolicy] = {}
        self._revision = time.time_ns() // 1_000_000  # rises across restarts too
        self._late: dict[int, asyncio.Task[None]] = {}
        self.lock = asyncio.Lock()
        self.changed = asyncio.Event()

    def policy_of(self, endpoint_id: int) -> EndpointPolicy | None:
        """What is in force at the endpoint now; None before its first policy."""
        return self._realised.get(endpoint_id)

    def unacknowledged(self) -> set[int]:
        """Endpoints whose L7 ports are closed until the module answers."""
        return set(self._late)

    async def realise(self, endpoint_ids: Iterable[int]) -> Realised:
        """Bring these endpoints to the repository's state. The caller holds ``lock``."""
        begin = time.monotonic()
        changed = [p for p in map(self._next_policy, sorted(endpoint_ids)) if p is not None]
        if changed:
            self.changed.set()
        for policy in changed:
            self._sink.publish_policy(policy)
        outcome = Realised(endpoints=len(changed))
        acknowledged = await asyncio.gather(
            *(
                self._sink.policy_acknowledged(p.endpoint_id, p.revision, ACKNOWLEDGE_SECONDS)
                for p in changed
            )
        )
        for policy, known in zip(changed, acknowledged, strict=True):
            if not known:
                outcome.unacknowledged.append(policy.endpoint_id)
                self._wait_on(policy)
            outcome.map_writes += self._datapath.sync_policy(
                policy.endpoint_id, policy if known else closed(policy)
            )
        outcome.seconds = time.monotonic() - begin
        return outcome

    def forget(self, endpoint_id: int) -> None:
        """The endpoint is gone: its policy leaves the module."""
        self._realised.pop(endpoint_id, None)
        late = self._late.pop(endpoint_id, None)
        if late:
            late.cancel()
        self._sink.remove_policy(endpoint_id)
        self.changed.set()

    def _next_policy(self, endpoint_id: int) -> EndpointPolicy | None:
        policy = self._repository.policy_for(endpoint_id)
        if policy is None or policy == self._realised.get(endpoint_id):
            return None
        late = self._late.pop(endpoint_id, None)
        if late:
            late.cancel()
        self._revision += 1
        policy = replace(policy, revision=self._revision)
        self._realised[endpoint_id] = policy
        return policy

    def _wait_on(self, policy: EndpointPolicy) -> None:
        log.warning(
            "the module did not acknowledge a policy: its L7 ports are closed until it does",
            endpoint=policy.endpoint_id,
            revision=policy.revision,
        )
        self._late[policy.endpoint_id] = asyncio.create_task(self._open_when_known(policy))

    async def _open_when_known(self, policy: EndpointPolicy) -> None:
        while not await self._sink.policy_acknowledged(
            policy.endpoint_id, policy.revision, timeout=5.0
        ):
            pass
        async with self.lock:
            if self._realised.get(policy.endpoint_id) is policy:
                self._datapath.sync_policy(policy.endpoint_id, policy)
                self._late.pop(policy.endpoint_id, None)
                self.changed.set()
                log.info("policy acknowledged late", endpoint=policy.endpoint_id)


def closed(policy: EndpointPolicy) -> EndpointPolicy:
    """The same policy with every L7-selected port denied: for a module that does not answer."""
    entries = {
        key: PolicyEntry(Action.DENY, None, entry.origins)
        if entry.action in (Action.REDIRECT, Action.AUTHENTICATE)
        else entry
        for key, entry in policy.entries.items()
    }
    return replace(policy, entries=entries)
