"""What people and tools apply, delete and follow by the agent's API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import asdict
from typing import Any

from kube_store.resource import identify
from kube_store.store import Change, Store
from node_agent.enforcement import Enforcement
from node_agent.member import Member
from node_agent.sources import Sources
from policy_engine.errors import FieldError

# What is followed unless a kind is named: what a kubelet needs.
_KUBELETS = frozenset({"Pod", "ConfigMap", "Secret"})


class Objects:
    """Belongs to the event loop's thread. ``pod_status`` is by (namespace, name)."""

    def __init__(self, store: Store, sources: Sources | Member, enforcement: Enforcement) -> None:
        self._store, self._sources, self._enforcement = store, sources, enforcement
        self.pod_status: dict[tuple[str, str], Any] = {}

    async def apply(self, objects: list[Any]) -> list[dict[str, Any]]:
        """A result for each; the invalid are refused, the rest is in force when this returns."""
        results = [self._apply(manifest) for manifest in objects]
        await self._enforcement.settle()
        return results

    async def delete(self, objects: list[Any]) -> list[dict[str, Any]]:
        """A result for each; what is gone holds no more when this returns."""
        results = [self._delete(manifest) for manifest in objects]
        await self._enforcement.settle()
        return results

    async def watch(self, kind: str | None) -> AsyncIterator[dict[str, Any]]:
        """What is there, then what changes. Pods, ConfigMaps and Secrets unless a kind is given."""
        kinds = {kind} if kind else _KUBELETS
        queue: asyncio.Queue[list[Change]] = asyncio.Queue()
        end = self._store.subscribe(queue.put_nowait)
        try:
            for resource in self._store.list():
                if resource.key.kind in kinds:
                    yield {"type": "ADDED", "object": resource.manifest}
            while True:
                for change in await queue.get():
                    if change.resource.key.kind in kinds:
                        yield {"type": str(change.type), "object": change.resource.manifest}
        finally:
            end()

    def _apply(self, manifest: Any) -> dict[str, Any]:
        key, errors = identify(manifest)
        if key is not None:
            errors = self._enforcement.policies.errors_in(key, manifest)
        if errors:
            return _result(manifest, "invalid", errors)
        try:
            return _result(manifest, self._sources.apply(manifest))
        except ValueError as error:
            return _result(manifest, "invalid", [FieldError("", str(error))])

    def _delete(self, manifest: Any) -> dict[str, Any]:
        key, errors = identify(manifest)
        if key is None:
            return _result(manifest, "invalid", errors)
        try:
            return _result(manifest, "deleted" if self._sources.delete(key) else "not found")
        except ValueError as error:
            return _result(manifest, "invalid", [FieldError("", str(error))])


def _result(manifest: Any, done: str, errors: Iterable[FieldError] = ()) -> dict[str, Any]:
    """One entry of the answer to apply or delete."""
    known = manifest if isinstance(manifest, dict) else {}
    metadata = known.get("metadata") if isinstance(known.get("metadata"), dict) else {}
    return {
        "kind": str(known.get("kind", "")),
        "namespace": str(metadata.get("namespace", "")) if metadata else "",
        "name": str(metadata.get("name", "")) if metadata else "",
        "result": done,
        "errors": [asdict(error) for error in errors],
    }
