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
        self.leads = False

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Until cancelled; the Lease is given up then."""
        try:
            while True:
                while not await self._acquire():
                    pause = self._terms.retry * random.uniform(1, 1.2)  # noqa: S311
                    await asyncio.sleep(pause)
                log.info("this one leads now", lease=self._name, identity=self._identity)
                await self._hold(lead)
                log.warning("this one leads no more", lease=self._name, identity=self._identity)
        finally:
            if self.leads:
                await self._release()

    async def _hold(self, lead: Callable[[], Awaitable[None]]) -> None:
        self.leads, renewed = True, time.monotonic()
        work = asyncio.ensure_future(lead())
        try:
            while time.monotonic() - renewed < self._terms.renew and not work.done():
                await asyncio.wait([work], timeout=self._terms.retry)
                if await self._acquire():
                    renewed = time.monotonic()
        finally:
            await cancelled(work)
        self.leads = False

    async def _acquire(self) -> bool:
        """Whether the Lease is ours now."""
        try:
            lease, _ = await self._client.request("GET", self._path, seconds=self._terms.retry * 2)
        except KubeError as error:
            return error.status == 404 and await self._write(None)
        except CONNECTION_ERRORS:
            return False
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        renewal = (holder, spec.get("renewTime"))
        if renewal != self._seen[0]:
            self._seen = (renewal, time.monotonic())  # by our clock: theirs may be another
        is_over = time.monotonic() - self._seen[1] > self._terms.lease
        if holder and holder != self._identity and not is_over:
            return False
        return await self._write(lease)

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
        try:
            await self._client.request(method, path, body=body, seconds=self._terms.retry * 2)
        except (KubeError, *CONNECTION_ERRORS) as error:
            log.debug("the lease was not written", error=str(error))
            return False
        return True

    async def _release(self) -> None:
        with contextlib.suppress(KubeError, *CONNECTION_ERRORS):
            lease, _ = await self._client.request("GET", self._path, seconds=self._terms.retry)
            if lease["spec"].get("holderIdentity") == self._identity:
                await self._write(lease, holder="")
        self.leads = False
