"""A Pod manifest as what the sandbox runs: containers with command, environment, volumes."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sandbox import images

# (kind, namespace, name) -> manifest of a ConfigMap or Secret, None if there is none
Find = Callable[[str, str, str], Mapping[str, Any] | None]


class BadPod(ValueError):
    """The manifest cannot be run; the message names the pod, the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Container:
    """``files`` are what its volumes hold: absolute path in the container -> bytes."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    files: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class PodSpec:
    namespace: str
    name: str
    uid: str
    hostname: str
    restart: str  # Always, OnFailure or Never
    containers: tuple[Container, ...]


def parse_pod(manifest: Mapping[str, Any], addresses: list[str], find: Find) -> PodSpec:
    """Raises BadPod. ``addresses`` are the pod's own, for ``status.podIP``."""
    metadata, spec = manifest.get("metadata") or {}, manifest.get("spec") or {}
    namespace, name = metadata.get("namespace", "default"), metadata.get("name", "")
    fields = {
        "metadata.name": name,
        "metadata.namespace": namespace,
        "metadata.uid": metadata.get("uid", ""),
        "status.podIP": addresses[0] if addresses else "",
        "status.podIPs": ",".join(addresses),
    }
    volumes = {
        volume.get("name", ""): _volume(volume, namespace, find)
        for volume in spec.get("volumes", [])
    }
    containers = []
    for index, item in enumerate(spec.get("containers", [])):
        at = f"Pod {namespace}/{name}: spec.containers[{index}]"
        given = tuple(item.get("command", [])) + tuple(item.get("args", []))
        try:
            command = images.command(item.get("image", ""), given, "command" in item)
        except images.UnknownImage as error:
            raise BadPod(f"{at}.image: {error}") from None
        env = {e["name"]: _value(e, at, fields, namespace, find) for e in item.get("env", [])}
        files = {}
        for mount in item.get("volumeMounts", []):
            if mount["name"] not in volumes:
                raise BadPod(f"{at}.volumeMounts: no volume is named {mount['name']!r}")
            for file, content in volumes[mount["name"]].items():
                files[f"{mount['mountPath'].rstrip('/')}/{file}"] = content
        containers.append(Container(item.get("name", str(index)), command, env, files))
    if not containers:
        raise BadPod(f"Pod {namespace}/{name}: spec.containers: at least one is required")
    return PodSpec(
        namespace,
        name,
        fields["metadata.uid"] or f"{namespace}-{name}",
        spec.get("hostname", name),
        spec.get("restartPolicy", "Always"),
        tuple(containers),
    )


def _value(
    item: Mapping[str, Any], at: str, fields: Mapping[str, str], namespace: str, find: Find
) -> str:
    """Container.env: a literal, or from a field, a ConfigMap, a Secret."""
    if "valueFrom" not in item:
        return str(item.get("value", ""))
    source = item["valueFrom"]
    if field := source.get("fieldRef", {}).get("fieldPath"):
        if field not in fields:
            known = ", ".join(fields)
            raise BadPod(f"{at}.env[{item['name']}].valueFrom.fieldRef: known are {known}")
        return fields[field]
    for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if reference := source.get(key):
            data = _data(kind, namespace, reference.get("name", ""), find)
            if reference.get("key") in data:
                return data[reference["key"]].decode()
            raise BadPod(f"{at}.env[{item['name']}]: no {reference.get('key')!r} in {kind}")
    raise BadPod(f"{at}.env[{item['name']}].valueFrom: not known: {', '.join(source)}")


def _volume(volume: Mapping[str, Any], namespace: str, find: Find) -> dict[str, bytes]:
    if name := volume.get("configMap", {}).get("name"):
        return _data("ConfigMap", namespace, name, find)
    if name := volume.get("secret", {}).get("secretName"):
        return _data("Secret", namespace, name, find)
    return {}


def _data(kind: str, namespace: str, name: str, find: Find) -> dict[str, bytes]:
    manifest = find(kind, namespace, name)
    if manifest is None:
        raise BadPod(f"{kind} {namespace}/{name}: there is none; apply it first")
    plain = manifest.get("stringData" if kind == "Secret" else "data") or {}
    coded = manifest.get("data" if kind == "Secret" else "binaryData") or {}
    return {k: str(v).encode() for k, v in plain.items()} | {
        k: base64.b64decode(v) for k, v in coded.items()
    }
