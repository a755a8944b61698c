"""Who the endpoints are: from pods to labels, from labels to identities, in the repository."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

from kube_store.resource import ResourceKey
from kube_store.store import Store
from node_agent.endpoints import EndpointRecord, EndpointTable
from policy_engine.identity import (
    FIRST_POD_IDENTITY,
    LAST_POD_IDENTITY,
    IdentityAllocator,
    Prefix,
    Reserved,
)
from policy_engine.labels import Labels, format_labels, pod_labels
from policy_engine.parse import AUDIT_ANNOTATION
from policy_engine.repository import PolicyRepository, Subject


class Membership:
    """Every method that changes something returns the endpoints that it concerns."""

    def __init__(self, store: Store, repository: PolicyRepository, table: EndpointTable) -> None:
        self._store, self._repository, self._table = store, repository, table
        self._allocator = IdentityAllocator(FIRST_POD_IDENTITY, LAST_POD_IDENTITY)
        self._labels: dict[int, Labels] = {}  # of each endpoint, as its identity was acquired

    def restore(self, exported: dict[str, int]) -> None:
        self._allocator.restore(exported)

    def export(self) -> dict[str, int]:
        return self._allocator.export()

    def put(self, record: EndpointRecord) -> tuple[EndpointRecord, set[int]]:
        """The record with its identity; raises IdentitiesExhausted, nothing has changed then."""
        labels, audit = self._pod(record)
        if self._labels.get(record.id) != labels or not record.identity:
            identity = self._acquire(labels)
            affected = self._repository.upsert_identity(identity, labels)
            affected |= self._release(record.id)
            self._labels[record.id] = labels
        else:
            identity, affected = record.identity, set()
        record = replace(record, identity=identity, labels=format_labels(labels))
        affected |= self._repository.upsert_endpoint(record.id, Subject(identity, labels, audit))
        self._table.put(record)
        return record, affected

    def remove(self, record: EndpointRecord) -> set[int]:
        self._repository.remove_endpoint(record.id)
        self._table.remove(record.id)
        return self._release(record.id) - {record.id}

    def refresh(self, namespace: str, name: str | None = None) -> set[int]:
        """Pods of a namespace (or one of them) may have other labels now."""
        affected: set[int] = set()
        for record in list(self._table):
            if record.pod_namespace == namespace and name in (None, record.pod_name):
                affected |= self.put(record)[1]
        return affected

    def addresses(self) -> dict[Prefix, tuple[int, int]]:
        """What the ipcache must say of this node's endpoints: (identity, endpoint id)."""
        return {
            ip_network(address): (record.identity, record.id)
            for record in self._table
            for address in record.addresses
        }

    def _pod(self, record: EndpointRecord) -> tuple[Labels, bool]:
        """Labels and the audit annotation; a pod that is not known yet is ``init``."""
        pod = self._store.get(ResourceKey("Pod", record.pod_namespace, record.pod_name))
        if pod is None:
            return {Reserved.INIT.label: ""}, False
        namespace = self._store.get(ResourceKey("Namespace", "", record.pod_namespace))
        metadata: dict[str, Any] = pod.manifest.get("metadata") or {}
        labels = pod_labels(
            record.pod_namespace,
            metadata.get("labels") or {},
            ((namespace.manifest.get("metadata") or {}).get("labels") or {}) if namespace else {},
            (pod.manifest.get("spec") or {}).get("serviceAccountName") or "default",
        )
        annotations = metadata.get("annotations") or {}
        return labels, str(annotations.get(AUDIT_ANNOTATION, "")).lower() == "true"

    def _acquire(self, labels: Labels) -> int:
        if Reserved.INIT.label in labels:
            return Reserved.INIT
        return self._allocator.acquire(labels)

    def _release(self, endpoint_id: int) -> set[int]:
        labels = self._labels.pop(endpoint_id, None)
        if labels is None or Reserved.INIT.label in labels:
            return set()
        number = self._allocator.release(labels)
        return self._repository.remove_identity(number) if number is not None else set()
