"""Where objects come from: the resources directory and ``sidegate apply``; the latest holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kube_store.applied import AppliedObjects
from kube_store.directory import DirectorySource
from kube_store.kept import Kept
from kube_store.resource import Resource, ResourceKey, SourceError
from kube_store.store import Store


class Sources:
    """Feeds the store. After a restart what was applied or deleted by command holds on, until the
    file that it came from changes."""

    def __init__(self, store: Store, directory: Path | None, state_dir: Path) -> None:
        self._store = store
        self._applied = AppliedObjects(state_dir / "objects")
        self._directory = None
        if directory:
            kept = Kept(state_dir / "unreadable-files.json")
            self._directory = DirectorySource(directory, self._on_batch, kept)
        self._in_directory: set[ResourceKey] = set()
        self._overridden: set[ResourceKey] = set()
        self._loading = False
        self._applied_errors: list[SourceError] = []

    async def start(self) -> None:
        """Everything that is there now."""
        found = self._applied.load()
        self._applied_errors = found.errors
        self._overridden = {r.key for r in found.resources} | found.tombstones
        if self._directory:
            self._loading = True
            self._directory.load()
            self._loading = False
        self._store.apply(found.resources)

    async def watch(self) -> None:
        """Runs until cancelled."""
        if self._directory:
            await self._directory.watch()

    def errors(self) -> list[SourceError]:
        return [*self._applied_errors, *(self._directory.errors() if self._directory else ())]

    def apply(self, manifest: dict[str, Any]) -> str:
        """``created``, ``configured`` or ``unchanged``. Raises OSError; ValueError as
        :meth:`AppliedObjects.put` does."""
        resource = self._applied.put(manifest)
        self._overridden.add(resource.key)
        change = self._store.upsert(resource)
        if change is None:
            return "unchanged"
        return "created" if change.type == "ADDED" else "configured"

    def delete(self, key: ResourceKey) -> bool:
        """False if there is no such object. Raises OSError."""
        if key in self._in_directory:
            self._applied.bury(key)
            self._overridden.add(key)
        else:
            self._applied.remove(key)
        return self._store.delete(key) is not None

    def _on_batch(self, upserts: list[Resource], deletes: list[ResourceKey]) -> None:
        self._in_directory |= {resource.key for resource in upserts}
        self._in_directory -= set(deletes)
        if self._loading:
            upserts = [r for r in upserts if r.key not in self._overridden]
        for key in [r.key for r in upserts] + deletes:
            if key in self._overridden and not self._loading:
                self._applied.remove(key)
                self._overridden.discard(key)
        self._store.apply(upserts, deletes)
