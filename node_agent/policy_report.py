"""What this node makes of policies and Gateways, in one object of its own: SidegatePolicyReport.

Agents never write policy objects: five hundred of them would write each one five hundred times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import structlog

from kube_store.back_off import BackOff
from kube_store.kube_client import CONNECTION_ERRORS, MERGE_PATCH, KubeClient, KubeError
from kube_store.resource import policy_ref
from kube_store.shared import GROUP_VERSION, REPORT, path_of
from kube_store.store import Store
from node_agent.ambient import LIMIT, judged_at_l7
from node_agent.enforcement import Enforcement
from node_agent.gateways import Gateways
from policy_engine.kinds import KINDS

log = structlog.get_logger(__name__)

_PAUSE_SECONDS = 0.25
_RETRY_SECONDS = (0.5, 30.0)
_PODS_NAMED = 5


class PolicyReport:
    """Only policies that select an endpoint here, or are wrong, are in it."""

    def __init__(
        self,
        node: str,
        client: KubeClient,
        store: Store,
        enforcement: Enforcement,
        gateways: Gateways | None = None,
    ) -> None:
        self._node, self._client, self._store = node, client, store
        self._enforcement, self._gateways = enforcement, gateways
        self._written: dict[str, Any] | None = None  # None: what is there is not known
        if gateways:
            gateways.on_refused = enforcement.controller.changed.set

    async def run(self) -> None:
        """Writes what changed, until cancelled."""
        back_off = BackOff(*_RETRY_SECONDS)
        controller = self._enforcement.controller
        while True:
            async with controller.lock:
                wanted = {"policies": dict(self._current()), "gateways": self._refused()}
            try:
                await self._write(wanted)
                back_off.reset()
            except (KubeError, *CONNECTION_ERRORS) as error:
                log.warning("the policy report cannot be written yet", error=str(error))
                await asyncio.sleep(back_off.next(getattr(error, "retry_after", 0.0)))
                continue
            await controller.changed.wait()
            await asyncio.sleep(_PAUSE_SECONDS)  # many changes, one write
            controller.changed.clear()

    def _current(self) -> Iterator[tuple[str, dict[str, Any]]]:
        policies, controller = self._enforcement.policies, self._enforcement.controller
        invalid = policies.invalid()
        late, full = controller.unacknowledged(), controller.unwritten().keys()
        limited = self._limited()
        for kind in KINDS:
            for resource in self._store.list(kind):
                endpoints = self._enforcement.repository.endpoints_of(policy_ref(resource.key))
                errors = invalid.get(resource.key, [])
                if not endpoints and not errors:
                    continue
                waiting, closed = sorted(endpoints & late), sorted(endpoints & full)
                yield (
                    str(policy_ref(resource.key)),
                    {
                        "generation": resource.manifest["metadata"].get("generation", 0),
                        "valid": not errors,
                        "enforced": not errors and not waiting and not closed,
                        "endpoints": len(endpoints),
                        "message": "; ".join(map(str, errors))
                        or (f"no room for it in the kernel at {closed}" if closed else "")
                        or (f"the module has not acknowledged it at {waiting}" if waiting else ""),
                        "limits": limited.get(str(policy_ref(resource.key)), ""),
                    },
                )

    def _refused(self) -> dict[str, dict[str, str]]:
        found = self._gateways.refused() if self._gateways else {}
        return {str(ref): asdict(ref) | {"message": text} for ref, text in found.items()}

    def _limited(self) -> dict[str, str]:
        """By policy, what of it is not enforced at which pods."""
        pods: dict[str, list[str]] = {}
        for record in self._enforcement.table:
            if self._enforcement.ambient.holds(record):
                for ref in judged_at_l7(self._enforcement.controller.policy_of(record.id)):
                    pods.setdefault(ref, []).append(record.pod)
        return {
            ref: f"{', '.join(sorted(found)[:_PODS_NAMED])}: {LIMIT}" for ref, found in pods.items()
        }

    async def _write(self, wanted: dict[str, Any]) -> None:
        path = path_of(REPORT, self._node)
        if self._written is None:
            body = {
                "apiVersion": GROUP_VERSION,
                "kind": REPORT,
                "metadata": {"name": self._node},
                "node": self._node,
                **wanted,
            }
            await self._replace(path, body)
        elif wanted != self._written:
            changes = {part: _changes(self._written[part], now) for part, now in wanted.items()}
            self._written = None  # should the write fail half-way
            await self._client.request("PATCH", path, body=changes, content_type=MERGE_PATCH)
        self._written = wanted

    async def _replace(self, path: str, body: dict[str, Any]) -> None:
        """Whatever an earlier agent said goes."""
        await self._client.remove(path)
        await self._client.request("POST", path_of(REPORT), body=body)


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """As a merge patch (RFC 7396)."""
    gone = {name: None for name in before if name not in now}
    return gone | {name: said for name, said in now.items() if before.get(name) != said}
