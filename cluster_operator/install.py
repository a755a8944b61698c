"""Puts the CRDs into the cluster, and brings older ones of ours to this version."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog

from cluster_operator.crds import MANAGED_BY, SCHEMA_VERSION, VERSION_ANNOTATION
from cluster_operator.events import Events
from kube_store.kube_client import CONNECTION_ERRORS, KubeClient, KubeError, resource_path
from kube_store.shared import GROUP

log = structlog.get_logger(__name__)

_GROUP_VERSION, _PLURAL = "apiextensions.k8s.io/v1", "customresourcedefinitions"
_RETRY_SECONDS = 2.0


async def install(client: KubeClient, events: Events, definitions: list[dict[str, Any]]) -> None:
    """Until every CRD is as it should be; what is not ours stays as it is."""
    for definition in definitions:
        while True:
            try:
                await _install(client, events, definition)
                break
            except (KubeError, *CONNECTION_ERRORS) as error:
                log.warning(
                    "a CRD cannot be installed yet",
                    crd=definition["metadata"]["name"],
                    error=str(error),
                )
                await asyncio.sleep(_RETRY_SECONDS)


async def _install(client: KubeClient, events: Events, definition: dict[str, Any]) -> None:
    name = definition["metadata"]["name"]
    path = resource_path(_GROUP_VERSION, _PLURAL, name=name)
    why = reason_to_leave(await client.find(path))
    if why:
        log.warning("CRD left as it is", crd=name, reason=why)
        await events.say(definition, "Warning", "LeftAsItIs", why)
        return
    await client.apply(path, definition, "sidegate-operator")
    log.info("CRD is installed", crd=name, version=SCHEMA_VERSION)


def reason_to_leave(present: dict[str, Any] | None) -> str:
    """Why what is there must not be touched; nothing where it may."""
    if present is None:
        return ""
    metadata, group = present["metadata"], present["spec"]["group"]
    ours = MANAGED_BY.items() <= (metadata.get("labels") or {}).items()
    if not ours and group != GROUP:
        return f"{metadata['name']} belongs to Cilium; use the policies of {GROUP} beside it"
    version = (metadata.get("annotations") or {}).get(VERSION_ANNOTATION, "0")
    if version.isdecimal() and int(version) > SCHEMA_VERSION:
        return f"{metadata['name']} is of version {version}, newer than our {SCHEMA_VERSION}"
    return ""
