"""Status of objects, written to the API server: the latest word on each, once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from kube_store.back_off import BackOff
from kube_store.kube_client import (
    CONNECTION_ERRORS,
    MERGE_PATCH,
    METADATA,
    KubeClient,
    KubeError,
    resource_path,
)

log = structlog.get_logger(__name__)

Status = Mapping[str, Any]

_REFUSED_FOR_GOOD = (400, 405, 413, 415, 422)  # the same patch will not do better later


@dataclass(frozen=True, slots=True)
class StatusTarget:
    """``group_version`` as "cilium.io/v2"; ``namespace`` is empty for cluster-scoped kinds."""

    group_version: str
    plural: str
    namespace: str
    name: str

    @property
    def path(self) -> str:
        return resource_path(self.group_version, self.plural, self.namespace, self.name) + "/status"

    def __str__(self) -> str:
        return f"{self.plural} {self.namespace}/{self.name}".replace(" /", " ")


async def patch_status(client: KubeClient, target: StatusTarget, status: Status) -> bool:
    """A JSON merge patch (RFC 7386) of the status subresource, once.

    False where there is no such object (any more). Raises KubeError, CONNECTION_ERRORS.
    """
    try:
        await client.request(
            "PATCH",
            target.path,
            body={"status": status},
            content_type=MERGE_PATCH,
            accept=METADATA,  # the answer would repeat all that the object says
        )
    except KubeError as error:
        if error.status == 404:
            return False
        raise
    return True


class StatusWriter:
    """Of several words on one object while it is written only the last one follows.

    What was written is not written again, unless ``remember`` is False: whoever puts it knows what
    an object has. What is refused is tried again with back-off, unless the
    API server says that it will never do; what is unreachable is tried until it is reached.
    """

    def __init__(self, client: KubeClient, concurrency: int = 4, remember: bool = True) -> None:
        self._client, self._remember = client, remember
        self._slots = asyncio.Semaphore(concurrency)
        self._wanted: dict[StatusTarget, Status] = {}
        self._written: dict[StatusTarget, Status] = {}
        self._at_work: set[StatusTarget] = set()
        self._queue: asyncio.Queue[StatusTarget] = asyncio.Queue()

    def put(self, target: StatusTarget, status: Status) -> None:
        """``status`` is a merge patch (None removes), not changed by the caller afterwards."""
        if self._wanted.get(target) == status:
            return  # written, or under way: _attempt knows it by its object
        self._wanted[target] = status
        if target not in self._at_work:
            self._at_work.add(target)
            self._queue.put_nowait(target)

    def forget(self, target: StatusTarget) -> None:
        """The object is gone; one of the same name that comes later is written anew."""
        self._wanted.pop(target, None)
        self._written.pop(target, None)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                target = await self._queue.get()
                group.create_task(self._settle(target))

    async def _settle(self, target: StatusTarget) -> None:
        """Until the last word on it is written, or it is gone."""
        back_off = BackOff()
        try:
            while (status := self._wanted.get(target)) not in (None, self._written.get(target)):
                assert status is not None
                if wait := await self._attempt(target, status, back_off):
                    await asyncio.sleep(wait)
        finally:
            self._at_work.discard(target)

    async def _attempt(self, target: StatusTarget, status: Status, back_off: BackOff) -> float:
        """Seconds until the next attempt; 0 where this one settled it."""
        try:
            async with self._slots:
                found = await patch_status(self._client, target, status)
        except KubeError as error:
            if error.status not in _REFUSED_FOR_GOOD:
                return self._later(target, error, back_off, error.retry_after)
            log.error("a status is refused", object=str(target), error=str(error))
        except CONNECTION_ERRORS as error:
            return self._later(target, error, back_off)
        else:
            if not found and self._wanted.get(target) is status:
                self.forget(target)
        if self._wanted.get(target) is status:  # no newer word, not forgotten meanwhile
            if self._remember:
                self._written[target] = status
            else:
                del self._wanted[target]
        return 0.0

    @staticmethod
    def _later(
        target: StatusTarget, error: Exception, back_off: BackOff, asked: float = 0.0
    ) -> float:
        wait = back_off.next(asked)
        if back_off.attempts == 1:
            log.warning("a status cannot be written yet", object=str(target), error=str(error))
        return wait
