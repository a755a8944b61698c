"""One of several processes leads: whoever holds a Lease of coordination.k8s.io."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from kube_store.kube_client import CONNECTION_ERRORS, KubeClient, KubeError, resource_path
from kube_store.tasks import cancelled

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Terms:
    """In seconds: how long a Lease holds after its last renewal, how long its holder leads without
    one, and how often it is asked for. As they are, those of client-go's leader election."""

    lease: int = 15
    renew: float = 10.0
    retry: float = 2.0


CALM = Terms()
QUICK = Terms(lease=2, renew=1.5, retry=0.4)  # another leads within 3 s
_SPREAD = 0.2  # of the pause between two questions: not all that wait ask at one moment


async def _nothing() -> None:
    pass


class Election:
    """``lead`` runs while this process holds the Lease, and is cancelled before another can."""

    def __init__(
        self, client: KubeClient, namespace: str, name: str, identity: str, terms: Terms = CALM
    ) -> None:
        self._client, self._identity = client, identity
        self._name, self._terms = name, terms
        self._collection = resource_path("coordination.k8s.io/v1", "leases", namespace)
        self._path = f"{self._collection}/{name}"
        self._seen: tuple[Any, float] = (None, 0.0)  # a holder's last renewal, and when we saw it
        self._own: dict[str, Any] | None = None  # the Lease as we wrote it last
        self._heard = 0.0  # when the API server answered last
        self._other = False
        self.leads = False

    async def run(
        self,
        lead: Callable[[], Awaitable[None]],
        follow: Callable[[], Awaitable[None]] = _nothing,
    ) -> None:
        """Until cancelled; the Lease is given up then.

        ``follow`` is awaited whenever the API server was asked and another holds the Lease: while
        it cannot be asked, nobody knows.
        """
        try:
            while True:
                while not await self._acquire():
                    if self._other:
                        await follow()
                    await asyncio.sleep(self._pause())
                log.info("this one leads now", lease=self._name, identity=self._identity)
                await self._hold(lead)
                log.warning("this one leads no more", lease=self._name, identity=self._identity)
        finally:
            if self.leads:
                await self._release()

    async def _hold(self, lead: Callable[[], Awaitable[None]]) -> None:
        self.leads, until = True, time.monotonic() + self._terms.renew
        work = asyncio.ensure_future(lead())
        try:
            while (left := until - time.monotonic()) > 0 and not work.done():
                await asyncio.wait([work], timeout=min(self._terms.retry, left))
                asked = time.monotonic()
                # An answer that is late says of a time that is over.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(until - asked):
                        if await self._acquire():
                            until = asked + self._terms.renew
        finally:
            await cancelled(work)
        self.leads = False

    def _pause(self) -> float:
        """Until the Lease is asked for again: no later than when it is over, if it is another's."""
        pause = self._terms.retry * random.uniform(1, 1.2)  # noqa: S311
        if not self._other:
            return pause
        left = self._seen[1] + self._terms.lease - time.monotonic()
        return min(pause, max(left, 0) + pause * _SPREAD)

    async def _acquire(self) -> bool:
        """Whether the Lease is ours now."""
        self._other = False
        if self._own and await self._write(self._own):  # nobody wrote it since
            self._heard = time.monotonic()
            return True
        try:
            lease, _ = await self._client.request("GET", self._path, seconds=self._terms.retry * 2)
        except KubeError as error:
            return error.status == 404 and await self._write(None)
        except CONNECTION_ERRORS:
            return False
        now = time.monotonic()
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        renewal = (holder, spec.get("renewTime"))
        # Times are by our clock: the holder's may be another. Nobody could renew what nobody could
        # ask for: after such a time the holder has the first turn.
        if renewal != self._seen[0] or now - self._heard > self._terms.lease:
            self._seen = (renewal, now)
        self._heard = now
        is_over = now - self._seen[1] > self._terms.lease
        self._other = bool(holder) and holder != self._identity and not is_over
        return not self._other and await self._write(lease)

    async def _write(self, lease: dict[str, Any] | None, holder: str | None = None) -> bool:
        """False where somebody was quicker: the resourceVersion is a precondition."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict((lease or {}).get("spec") or {})
        holder = self._identity if holder is None else holder
        if spec.get("holderIdentity") != holder:
            spec |= {"acquireTime": now, "leaseTransitions": spec.get("leaseTransitions", 0) + 1}
        spec |= {
            "holderIdentity": holder, "leaseDurationSeconds": self._terms.lease, "renewTime": now,
        }  # fmt: skip
        body = lease or {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name},
        }
        body["spec"] = spec
        method, path = ("PUT", self._path) if lease else ("POST", self._collection)
        seconds, self._own = self._terms.retry * 2, None
        try:
            written, _ = await self._client.request(method, path, body=body, seconds=seconds)
        except (KubeError, *CONNECTION_ERRORS) as error:
            log.debug("the lease was not written", error=str(error))
            return False
        self._own = written if holder == self._identity else None
        return True

    async def _release(self) -> None:
        with contextlib.suppress(KubeError, *CONNECTION_ERRORS):
            lease, _ = await self._client.request("GET", self._path, seconds=self._terms.retry)
            if lease["spec"].get("holderIdentity") == self._identity:
                await self._write(lease, holder="")
        self.leads = False
