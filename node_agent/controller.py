"""From a changed resource or endpoint to enforcement, in the order that never opens a gap.

One change is realised at a time: the repository says which endpoints it concerns, each of those
gets its new policy in the module first and in the kernel after the acknowledgement. Addresses
change identity after every policy knows the new identity, and lose it before any policy forgets it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import structlog

from datapath.facade import Datapath
from datapath.libbpf import BpfError
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
        self._unwritten: dict[int, BpfError] = {}
        self._unplaced: Mapping[int, BpfError] = {}
        self.lock = asyncio.Lock()
        self.changed = asyncio.Event()

    def policy_of(self, endpoint_id: int) -> EndpointPolicy | None:
        """What is in force at the endpoint now; None before its first policy."""
        return self._realised.get(endpoint_id)

    def unacknowledged(self) -> set[int]:
        """Endpoints whose L7 ports are closed until the module answers."""
        return set(self._late)

    def unwritten(self) -> Mapping[int, BpfError]:
        """Endpoints that are closed, for what their policy needs found no room in the kernel."""
        return self._unwritten

    def set_unplaced(self, identities: Mapping[int, BpfError]) -> None:
        """Identities of addresses that the kernel had no room for: it takes these for somebody
        less known. Who allows them denies them then; who denies them, or has them judged, would
        let them pass, and is closed. The caller holds ``lock``."""
        self._unplaced = identities
        for policy in [*self._realised.values()]:
            if error := self._lacks(policy):
                self._close(policy.endpoint_id, error)

    async def realise(self, endpoint_ids: Iterable[int]) -> Realised:
        """Bring these endpoints to the repository's state, and those that found no room before: a
        full map must not keep others from theirs. The caller holds ``lock``."""
        begin = time.monotonic()
        wanted = sorted({*endpoint_ids, *self._unwritten})
        changed = [p for p in map(self._next_policy, wanted) if p is not None]
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
            outcome.map_writes += self._write(policy, policy if known else closed(policy))
        outcome.seconds = time.monotonic() - begin
        return outcome

    def forget(self, endpoint_id: int) -> None:
        """The endpoint is gone: its policy leaves the module."""
        self._realised.pop(endpoint_id, None)
        self._unwritten.pop(endpoint_id, None)
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

    def _write(self, policy: EndpointPolicy, form: EndpointPolicy) -> int:
        """The number of writes; 0 where the map is full, the endpoint is closed then."""
        endpoint = policy.endpoint_id
        if error := self._lacks(policy):
            self._close(endpoint, error)
            return 0
        try:
            writes = self._datapath.sync_policy(endpoint, form)
        except BpfError as failure:
            self._close(endpoint, failure)
            return 0
        if self._unwritten.pop(endpoint, None):
            log.info("a policy has found room in the kernel", endpoint=endpoint)
        return writes

    def _lacks(self, policy: EndpointPolicy) -> BpfError | None:
        """Why the kernel cannot be trusted with it."""
        needed = (k.identity for k, e in policy.entries.items() if e.action is not Action.ALLOW)
        if not self._unplaced:
            return None
        return next((self._unplaced[each] for each in needed if each in self._unplaced), None)

    def _close(self, endpoint: int, error: BpfError) -> None:
        self._datapath.close_endpoint(endpoint)
        if endpoint not in self._unwritten:
            log.error("no room for a policy in the kernel: the endpoint is closed",
                      endpoint=endpoint, error=str(error))  # fmt: skip
        self._unwritten[endpoint] = error
        self._realised.pop(endpoint, None)
        self.changed.set()

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
                self._write(policy, policy)
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
