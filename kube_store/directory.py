"""A directory of YAML as a source of objects: what changed in it, and what is wrong with it.

What cannot be read takes nothing away: the objects that a file gave before stay until the file
reads clean without them, or is gone. So an editor's half-written file never opens a gap, not even
if the process restarts meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

from watchfiles import awatch

from kube_store.resource import Resource, ResourceKey, SourceError, identify
from kube_store.yaml_reader import read_yaml

SUFFIXES = (".yaml", ".yml", ".json")

OnBatch = Callable[[list[Resource], list[ResourceKey]], None]
_Signature = tuple[int, int, int, int]


class DirectorySource:
    """All YAML files below ``path``, hidden ones and hidden directories left out.

    ``on_batch`` is given the objects that are new or changed and the keys of those that are gone,
    and is not called when there are neither. Of two objects of one name the first stays. ``kept``
    has the last objects of the files that cannot be read now.
    """

    def __init__(self, path: Path, on_batch: OnBatch, kept: MutableMapping[str, Any]) -> None:
        self._path = path
        self._on_batch = on_batch
        self._kept = kept
        self._signatures: dict[Path, _Signature] = {}
        self._files: dict[Path, list[Resource]] = {}
        self._file_errors: dict[Path, list[SourceError]] = {}
        self._current: dict[ResourceKey, Resource] = {}
        self._duplicates: list[SourceError] = []

    def load(self) -> None:
        """Read every file that changed since the last time."""
        if not self._path.is_dir():
            remedy = "create it, or name another with --resources"
            self._file_errors[self._path] = [
                SourceError(str(self._path), 0, "", "", "there is no such directory", remedy)
            ]
            return
        self._file_errors.pop(self._path, None)
        found = dict(self._scan())
        for path in self._signatures.keys() - found.keys():
            self._files.pop(path, None)
            self._file_errors.pop(path, None)
        for name in self._kept.keys() - {str(path) for path in found}:
            del self._kept[name]
        for path, signature in found.items():
            if self._signatures.get(path) != signature:
                self._read(path)
        self._signatures = found
        self._settle()

    async def watch(self) -> None:
        """Runs until cancelled, or until the directory itself is gone."""
        if not self._path.is_dir():
            return
        self.load()
        async for _ in awatch(self._path, watch_filter=None, debounce=200, step=20):
            self.load()

    def errors(self) -> list[SourceError]:
        """What is wrong now, by file and line."""
        found = [error for errors in self._file_errors.values() for error in errors]
        return sorted([*found, *self._duplicates], key=lambda error: (error.source, error.line))

    def _scan(self) -> Iterator[tuple[Path, _Signature]]:
        for folder, folders, files in os.walk(self._path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                if name.endswith(SUFFIXES) and not name.startswith("."):
                    path = Path(folder, name)
                    try:
                        stat = path.stat()
                    except OSError:  # gone since it was listed, or a link to nowhere
                        continue
                    yield path, (stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino)

    def _read(self, path: Path) -> None:
        before = self._files.get(path) or _recalled(self._kept.get(str(path)), path)
        resources, errors = _content(path, bool(before))
        if errors:
            read = {resource.key for resource in resources}
            resources += [resource for resource in before if resource.key not in read]
            self._kept[str(path)] = [[each.line, each.manifest] for each in resources]
        else:
            self._kept.pop(str(path), None)
        self._files[path] = resources
        self._file_errors[path] = errors

    def _settle(self) -> None:
        """One object per key out of all files, and the batch that leads there."""
        chosen: dict[ResourceKey, Resource] = {}
        rivals: list[Resource] = []
        for path in sorted(self._files):
            for resource in self._files[path]:
                first = chosen.get(resource.key)
                if first is None:
                    chosen[resource.key] = resource
                elif self._holds(resource) and not self._holds(first):
                    chosen[resource.key] = resource
                    rivals.append(first)
                else:
                    rivals.append(resource)
        self._duplicates = [_duplicate(rival, chosen[rival.key]) for rival in rivals]
        upserts = [new for key, new in chosen.items() if self._current.get(key) != new]
        deletes = [key for key in self._current if key not in chosen]
        self._current = chosen
        if upserts or deletes:
            self._on_batch(upserts, deletes)

    def _holds(self, resource: Resource) -> bool:
        """Whether the file that it is from gave the object that is in force."""
        current = self._current.get(resource.key)
        return current is not None and current.source == resource.source


def _content(path: Path, had_objects: bool) -> tuple[list[Resource], list[SourceError]]:
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        remedy = "make it a readable file of UTF-8 text"
        return [], [SourceError(str(path), 0, "", "", str(error), remedy)]
    if not text and had_objects:
        remedy = "delete the file to remove its objects"
        message = "the file is empty; its last objects stay in force"
        return [], [SourceError(str(path), 0, "", "", message, remedy)]
    return read_yaml(text, str(path))


def _recalled(kept: Any, path: Path) -> list[Resource]:
    """What an earlier process kept of a file."""
    recalled = []
    for line, manifest in kept or ():
        key, _ = identify(manifest)
        if key is not None:
            recalled.append(Resource(key, manifest, str(path), line))
    return recalled


def _duplicate(rival: Resource, first: Resource) -> SourceError:
    return SourceError(
        rival.source,
        rival.line,
        str(rival.key),
        "metadata.name",
        f"{first.origin} has an object of this name, which stays; {rival.origin} is left out",
        "rename or remove one of the two",
    )
