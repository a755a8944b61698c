"""What this node makes of the policies, in one object of its own: SidegatePolicyReport.

Agents never write policy objects: five hundred of them would write each one five hundred times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import structlog

from kube_store.kube_client import (
    CONNECTION_ERRORS,
    MERGE_PATCH,
    KubeClient,
    KubeError,
    resource_path,
)
from kube_store.store import Store
from node_agent.enforcement import Enforcement
from node_agent.identities import GROUP_VERSION
from node_agent.policies import ref_of
from policy_engine.kinds import KINDS

log = structlog.get_logger(__name__)

KIND, PLURAL = "SidegatePolicyReport", "sidegatepolicyreports"
_PAUSE_SECONDS = 0.25
_RETRY_SECONDS = (0.5, 30.0)


class PolicyReport:
    """Only policies that select an endpoint here, or are wrong, are in it."""

    def __init__(
        self, node: str, client: KubeClient, store: Store, enforcement: Enforcement
    ) -> None:
        self._node, self._client, self._store = node, client, store
        self._enforcement = enforcement
        self._written: dict[str, Any] | None = None  # None: what is there is not known

    async def run(self) -> None:
        """Writes what changed, until cancelled."""
        delay, most = _RETRY_SECONDS
        while True:
            try:
                await self._write(dict(self._current()))
                delay = _RETRY_SECONDS[0]
            except (KubeError, *CONNECTION_ERRORS) as error:
                log.warning("the policy report cannot be written yet", error=str(error))
                await asyncio.sleep(delay)
                delay = min(most, delay * 2)
                continue
            await self._enforcement.realised.wait()
            self._enforcement.realised.clear()
            await asyncio.sleep(_PAUSE_SECONDS)  # many changes, one write

    def _current(self) -> Iterator[tuple[str, dict[str, Any]]]:
        policies, controller = self._enforcement.policies, self._enforcement.controller
        invalid = policies.invalid()
        late = controller.unacknowledged()
        for kind in KINDS:
            for resource in self._store.list(kind):
                endpoints = self._enforcement.repository.endpoints_of(ref_of(resource.key))
                errors = invalid.get(resource.key, [])
                if not endpoints and not errors:
                    continue
                waiting = sorted(endpoints & late)
                yield (
                    str(ref_of(resource.key)),
                    {
                        "generation": resource.manifest["metadata"].get("generation", 0),
                        "valid": not errors,
                        "enforced": not errors and not waiting,
                        "endpoints": len(endpoints),
                        "message": "; ".join(map(str, errors))
                        or (f"the module has not acknowledged it at {waiting}" if waiting else ""),
                    },
                )

    async def _write(self, wanted: dict[str, Any]) -> None:
        path = resource_path(GROUP_VERSION, PLURAL, name=self._node)
        if self._written is None:
            body = {
                "apiVersion": GROUP_VERSION,
                "kind": KIND,
                "metadata": {"name": self._node},
                "node": self._node,
                "policies": wanted,
            }
            await self._replace(path, body)
        elif wanted != self._written:
            changes: dict[str, Any] = {name: None for name in self._written if name not in wanted}
            changes |= {n: said for n, said in wanted.items() if self._written.get(n) != said}
            self._written = None  # should the write fail half-way
            await self._client.request(
                "PATCH", path, body={"policies": changes}, content_type=MERGE_PATCH
            )
        self._written = wanted

    async def _replace(self, path: str, body: dict[str, Any]) -> None:
        """Whatever an earlier agent said goes."""
        try:
            await self._client.request("DELETE", path)
        except KubeError as error:
            if error.status != 404:
                raise
        await self._client.request("POST", resource_path(GROUP_VERSION, PLURAL), body=body)
