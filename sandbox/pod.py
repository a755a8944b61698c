"""A Pod manifest as what the sandbox runs: containers with command, environment, volumes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sandbox import images
from sandbox.volumes import BadPod, Find, Volume, data_of, parse_volume

__all__ = ["BadPod", "Container", "Find", "Mount", "PodSpec", "parse_pod"]


# No container is limited here: its limits are what the node has (API: ResourceFieldSelector).
_NODE_HAS = {"cpu": str(os.cpu_count()), "memory": str(8 << 30), "ephemeral-storage": str(8 << 30)}


@dataclass(frozen=True, slots=True)
class Mount:
    """``sub_path`` is relative to the volume, "" for all of it."""

    volume: str
    path: str
    sub_path: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """``probes`` are the manifest's, by ``readiness``, ``liveness`` and ``startup``; ``user`` is 0
    for root, ``group`` that of the user unless another is given; ``stays``: an init container that
    goes on beside the others (a native sidecar); ``post_start`` is run in it once it has started,
    and the next one waits for that; ``pre_stop`` before it is ended."""

    name: str
    image: str
    command: tuple[str, ...]
    env: Mapping[str, str]
    mounts: tuple[Mount, ...]
    probes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    user: int = 0
    group: int = 0
    stays: bool = False
    post_start: tuple[str, ...] = ()
    pre_stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PodSpec:
    """``restart`` is Always, OnFailure or Never; ``grace`` in seconds."""

    namespace: str
    name: str
    uid: str
    hostname: str
    restart: str
    host_network: bool
    grace: float
    init: tuple[Container, ...]
    containers: tuple[Container, ...]
    volumes: tuple[Volume, ...]


def parse_pod(
    manifest: Mapping[str, Any],
    addresses: list[str],
    find: Find,
    node: Mapping[str, str] | None = None,
) -> PodSpec:
    """``addresses`` are the pod's own; ``node`` has ``spec.nodeName`` and ``status.hostIP``, and
    what each container's environment begins with under ``env:NAME``. Raises BadPod."""
    metadata, spec = manifest.get("metadata") or {}, manifest.get("spec") or {}
    namespace, name = metadata.get("namespace", "default"), metadata.get("name", "")
    fields = {
        "metadata.name": name,
        "metadata.namespace": namespace,
        "metadata.uid": metadata.get("uid", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", "default"),
        "status.podIP": addresses[0] if addresses else "",
        "status.podIPs": ",".join(addresses),
        **(node or {}),
    }
    for kind in ("labels", "annotations"):
        for key, value in (metadata.get(kind) or {}).items():
            fields[f"metadata.{kind}['{key}']"] = value
    volumes = {
        volume.get("name", ""): parse_volume(volume, namespace, fields, find)
        for volume in spec.get("volumes") or []
    }
    containers = {
        key: tuple(
            _container(
                item,
                f"Pod {namespace}/{name}: spec.{key}[{index}]",
                fields,
                volumes,
                namespace,
                find,
            )
            for index, item in enumerate(spec.get(key) or [])
        )
        for key in ("initContainers", "containers")
    }
    if not containers["containers"]:
        raise BadPod(f"Pod {namespace}/{name}: spec.containers: at least one is required")
    return PodSpec(
        namespace,
        name,
        fields["metadata.uid"] or f"{namespace}-{name}",
        spec.get("hostname", name),
        spec.get("restartPolicy", "Always"),
        bool(spec.get("hostNetwork")),
        float(spec.get("terminationGracePeriodSeconds", 30)),
        containers["initContainers"],
        containers["containers"],
        tuple(volumes.values()),
    )


def _container(
    item: Mapping[str, Any],
    at: str,
    fields: Mapping[str, str],
    volumes: Mapping[str, Volume],
    namespace: str,
    find: Find,
) -> Container:
    env = {name[4:]: value for name, value in fields.items() if name.startswith("env:")}
    for each in item.get("env") or []:
        env[each["name"]] = _value(each, at, fields, namespace, find)
    given = tuple(
        _expand(text, env) for text in [*(item.get("command") or []), *(item.get("args") or [])]
    )
    try:
        command = images.command(item.get("image", ""), given, "command" in item)
    except images.UnknownImage as error:
        raise BadPod(f"{at}.image: {error}") from None
    mounts = []
    for mount in item.get("volumeMounts") or []:
        if mount["name"] not in volumes:
            raise BadPod(f"{at}.volumeMounts: no volume is named {mount['name']!r}")
        mounts.append(
            Mount(mount["name"], mount["mountPath"].rstrip("/"), mount.get("subPath", ""))
        )
    names = ("readiness", "liveness", "startup")
    security = item.get("securityContext") or {}
    user = int(security.get("runAsUser") or 0)
    return Container(
        item.get("name", "container"),
        item.get("image", ""),
        command,
        env,
        tuple(mounts),
        {kind: item[f"{kind}Probe"] for kind in names if item.get(f"{kind}Probe")},
        {p["name"]: p["containerPort"] for p in item.get("ports") or [] if p.get("name")},
        user,
        int(security.get("runAsGroup") or user),
        item.get("restartPolicy") == "Always",
        _hook(item, "postStart"),
        _hook(item, "preStop"),
    )


def _hook(item: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple((item.get("lifecycle") or {}).get(name, {}).get("exec", {}).get("command", ()))


def _expand(text: str, env: Mapping[str, str]) -> str:
    """``$(NAME)`` of a command, as Kubernetes replaces it; an unknown name stays."""
    for name, value in env.items():
        text = text.replace(f"$({name})", value)
    return text


def _value(
    item: Mapping[str, Any], at: str, fields: Mapping[str, str], namespace: str, find: Find
) -> str:
    """Container.env: a literal, or from a field, a ConfigMap, a Secret."""
    if "valueFrom" not in item:
        return str(item.get("value", ""))
    source = item["valueFrom"]
    if resource := (source.get("resourceFieldRef") or {}).get("resource"):
        return _NODE_HAS[resource.rpartition(".")[2]]
    if field_path := (source.get("fieldRef") or {}).get("fieldPath"):
        if field_path in fields:
            return fields[field_path]
        if field_path.startswith(("metadata.labels[", "metadata.annotations[")):
            return ""
        known = ", ".join(name for name in fields if not name.startswith("env:"))
        raise BadPod(f"{at}.env[{item['name']}].valueFrom.fieldRef: known are {known}")
    for key, kind in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
        if reference := source.get(key):
            if reference.get("optional") and find(kind, namespace, reference["name"]) is None:
                return ""
            data = data_of(kind, namespace, reference.get("name", ""), find)
            if reference.get("key") in data:
                return data[reference["key"]].decode()
            raise BadPod(f"{at}.env[{item['name']}]: no {reference.get('key')!r} in {kind}")
    raise BadPod(f"{at}.env[{item['name']}].valueFrom: not known: {', '.join(source)}")
