"""The volumes of a Pod: what files each holds, or which directory it is."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# (kind, namespace, name) -> manifest of a ConfigMap or Secret, None if there is none; for the kind
# Token, whose name is its audience, {"data": {"token": ...}}
Find = Callable[[str, str, str], Mapping[str, Any] | None]


class BadPod(ValueError):
    """The manifest cannot be run; the message names the pod, the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Volume:
    """``host_path`` is a directory of the node; ``csi`` the volume source that a driver publishes;
    otherwise it has ``files``, by relative path."""

    name: str
    files: Mapping[str, bytes] = field(default_factory=dict)
    host_path: str = ""
    csi: Mapping[str, Any] = field(default_factory=dict)


def parse_volume(
    volume: Mapping[str, Any], namespace: str, fields: Mapping[str, str], find: Find
) -> Volume:
    """``fields`` are those of the downward API. Raises BadPod."""
    name = volume.get("name", "")
    if host := volume.get("hostPath"):
        return Volume(name, host_path=host.get("path", ""))
    if csi := volume.get("csi"):
        return Volume(name, csi=csi)
    if projected := volume.get("projected"):
        files: dict[str, bytes] = {}
        for source in projected.get("sources") or []:
            files |= _source(source, namespace, fields, find)
        return Volume(name, files)
    if secret := volume.get("secret"):
        return Volume(name, _source({"secret": {**secret, "name": secret.get("secretName")}},
                                    namespace, fields, find))  # fmt: skip
    return Volume(name, _source(volume, namespace, fields, find))


def references(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(kind, name) of every ConfigMap, Secret and Token that a Pod needs before it can start."""
    spec = manifest.get("spec") or {}
    for volume in spec.get("volumes") or []:
        for source in [volume, *((volume.get("projected") or {}).get("sources") or [])]:
            if one := source.get("configMap"):
                yield "ConfigMap", one.get("name", "")
            if one := source.get("secret"):
                yield "Secret", one.get("secretName") or one.get("name", "")
            if one := source.get("serviceAccountToken"):
                yield "Token", one.get("audience", "")
    for container in [*(spec.get("initContainers") or []), *(spec.get("containers") or [])]:
        for item in container.get("env") or []:
            source = item.get("valueFrom") or {}
            if one := source.get("configMapKeyRef"):
                yield "ConfigMap", one.get("name", "")
            if one := source.get("secretKeyRef"):
                yield "Secret", one.get("name", "")


def data_of(kind: str, namespace: str, name: str, find: Find) -> dict[str, bytes]:
    """What a ConfigMap or Secret holds. Raises BadPod where there is none."""
    manifest = find(kind, namespace, name)
    if manifest is None:
        raise BadPod(f"{kind} {namespace}/{name}: there is none; apply it first")
    plain = manifest.get("stringData" if kind == "Secret" else "data") or {}
    coded = manifest.get("data" if kind == "Secret" else "binaryData") or {}
    return {k: str(v).encode() for k, v in plain.items()} | {
        k: base64.b64decode(v) for k, v in coded.items()
    }


def _downward(item: Mapping[str, Any], fields: Mapping[str, str]) -> str:
    """``metadata.labels`` and ``metadata.annotations`` are a line for each, quoted."""
    path = (item.get("fieldRef") or {}).get("fieldPath", "")
    if path not in ("metadata.labels", "metadata.annotations"):
        return fields.get(path, "")
    named = {k[len(path) + 2 : -2]: v for k, v in fields.items() if k.startswith(f"{path}[")}
    return "\n".join(f"{name}={json.dumps(value)}" for name, value in sorted(named.items()))


def _source(
    source: Mapping[str, Any], namespace: str, fields: Mapping[str, str], find: Find
) -> dict[str, bytes]:
    for key, kind in (("configMap", "ConfigMap"), ("secret", "Secret")):
        if one := source.get(key):
            name = one.get("name", "")
            if one.get("optional") and find(kind, namespace, name) is None:
                return {}
            data = data_of(kind, namespace, name, find)
            items = one.get("items") or [{"key": k, "path": k} for k in data]
            return {item["path"]: data.get(item["key"], b"") for item in items}
    if one := source.get("serviceAccountToken"):
        token = find("Token", namespace, one.get("audience", ""))
        return {one["path"]: str(((token or {}).get("data") or {}).get("token", "")).encode()}
    if one := source.get("downwardAPI"):
        return {item["path"]: _downward(item, fields).encode() for item in one.get("items") or []}
    return {}  # emptyDir, and what has no files
