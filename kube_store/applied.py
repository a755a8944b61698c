"""What ``sidegate apply`` and ``sidegate delete`` said, kept across restarts of the agent.

One file for each object. An object of the resources directory that was deleted by command leaves a
tombstone, so that a restart does not bring it back; applying it again replaces the tombstone.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kube_store.files import replace_file
from kube_store.resource import Resource, ResourceKey, SourceError, identify

SOURCE = "apply"


@dataclass(slots=True)
class Applied:
    """What was found; ``errors`` names the files that could not be read."""

    resources: list[Resource] = field(default_factory=list)
    tombstones: set[ResourceKey] = field(default_factory=set)
    errors: list[SourceError] = field(default_factory=list)


class AppliedObjects:
    """Every method does its I/O before it returns; OSError if the disk refuses."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def load(self) -> Applied:
        found = Applied()
        for path in sorted(self._directory.glob("*.json")):
            try:
                self._read(path, found)
            except (OSError, ValueError, TypeError, KeyError) as error:
                message = f"cannot be read: {type(error).__name__}: {error}"
                remedy = "remove the file and apply its object again"
                found.errors.append(SourceError(str(path), 0, "", "", message, remedy))
        return found

    def put(self, manifest: dict[str, Any]) -> Resource:
        """ValueError for a manifest without a key, see :func:`kube_store.resource.identify`."""
        resource = _resource(manifest)
        self._write(resource.key, {"manifest": manifest})
        return resource

    def remove(self, key: ResourceKey) -> bool:
        """Forget the object or the tombstone; False if there was neither."""
        path = self._path(key)
        existed = path.exists()
        path.unlink(missing_ok=True)
        return existed

    def bury(self, key: ResourceKey) -> None:
        """Leave a tombstone, in place of the applied object if there was one."""
        self._write(key, {"tombstone": asdict(key)})

    def _write(self, key: ResourceKey, record: dict[str, Any]) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        replace_file(self._path(key), json.dumps(record, separators=(",", ":")).encode())

    def _path(self, key: ResourceKey) -> Path:
        # A digest, because kind, namespace and name together can be longer than a file name.
        text = "\0".join((key.kind, key.namespace, key.name))
        return self._directory / f"{hashlib.sha256(text.encode()).hexdigest()[:40]}.json"

    @staticmethod
    def _read(path: Path, found: Applied) -> None:
        record = json.loads(path.read_bytes())
        if "tombstone" in record:
            found.tombstones.add(ResourceKey(**record["tombstone"]))
        else:
            found.resources.append(_resource(record["manifest"]))


def _resource(manifest: dict[str, Any]) -> Resource:
    key, errors = identify(manifest)
    if key is None:
        raise ValueError("; ".join(map(str, errors)))
    return Resource(key, manifest, SOURCE)
