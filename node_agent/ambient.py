"""Pods that Istio redirects in ambient mode: recognised, so that nobody takes their L7 rules for
enforced where they are not.

ztunnel speaks HBONE (mTLS) from one pod's network namespace to port 15008 of the other's. Nobody
but ztunnel can read that, so on its way there is L3/L4 only. What comes in plain to a port with L7
rules goes to the node's Envoy, whose connections to the pod istio-cni takes for probes and rewrites
their source: they find no way back, which leaves the port closed.
Source: Istio documentation, "Ambient mode: add workloads to the mesh"; ``ambient.istio.io/
redirection`` is what istio-cni writes once a pod is redirected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kube_store.resource import ResourceKey
from kube_store.store import Change, ChangeType, Store
from node_agent.endpoints import EndpointRecord
from policy_engine.model import EndpointPolicy

LIMIT = (
    "in Istio's ambient mode: L3/L4 rules hold, for HBONE on port 15008; HTTP and Kafka rules are "
    "not enforced inside HBONE, and the ports that they select are closed to what comes in plain: "
    "give the pod a sidecar to have them enforced"
)
_MODE = "istio.io/dataplane-mode"
_REDIRECTED = "ambient.istio.io/redirection"
_SIDECAR = "sidecar.istio.io/status"


def is_ambient(pod: Mapping[str, Any], namespace: Mapping[str, Any]) -> bool:
    """By both manifests; ``{}`` for one that is not known. A sidecar keeps a pod out."""
    annotations = (pod.get("metadata") or {}).get("annotations") or {}
    if _SIDECAR in annotations or (pod.get("spec") or {}).get("hostNetwork"):
        return False
    if annotations.get(_REDIRECTED) == "enabled":
        return True
    return (_mode(pod) or _mode(namespace)) == "ambient"


class Ambient:
    """``changed`` is called when pods may be, or not be, in ambient mode that were not, or were.

    Its memory holds only what has anything to do with ambient mode.
    """

    def __init__(self, store: Store, changed: Callable[[], None]) -> None:
        self._store, self._changed = store, changed
        self._said: dict[ResourceKey, tuple[str, ...]] = {}
        store.subscribe(self._take)

    def holds(self, record: EndpointRecord) -> bool:
        pod = self._store.get(ResourceKey("Pod", record.pod_namespace, record.pod_name))
        namespace = self._store.get(ResourceKey("Namespace", "", record.pod_namespace))
        return is_ambient(pod.manifest if pod else {}, namespace.manifest if namespace else {})

    def _take(self, changes: list[Change]) -> None:
        for change in changes:
            key, manifest = change.resource.key, change.resource.manifest
            if key.kind not in ("Pod", "Namespace"):
                continue
            said: tuple[str, ...] = ()
            if change.type is not ChangeType.DELETED:
                annotations = manifest["metadata"].get("annotations") or {}
                said = (_mode(manifest), str(annotations.get(_REDIRECTED, "")))
            if any(said) and self._said.get(key) != said:
                self._said[key] = said
                self._changed()
            elif not any(said) and self._said.pop(key, ()):
                self._changed()


def judged_at_l7(policy: EndpointPolicy | None) -> set[str]:
    """The policies that have L7 rules for an endpoint, as ``kind/namespace/name``."""
    entries = policy.entries.values() if policy else ()
    return {origin.partition("#")[0] for e in entries if e.parser for origin in e.origins}


def _mode(manifest: Mapping[str, Any]) -> str:
    return str(((manifest.get("metadata") or {}).get("labels") or {}).get(_MODE, ""))
