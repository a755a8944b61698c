"""Who the endpoints are: from pods to labels, from labels to identities, in the repository."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kube_store.resource import Resource, ResourceKey
from kube_store.shared import IDENTITY, SLICE
from kube_store.store import Change, ChangeType, Store
from node_agent.endpoints import EndpointRecord, EndpointTable
from node_agent.identities import Identities
from node_agent.named_ports import NamedPortIndex, compiled, of_pod
from policy_engine.identity import Reserved
from policy_engine.labels import Labels, format_labels, pod_labels
from policy_engine.parse import AUDIT_ANNOTATION
from policy_engine.repository import NamedPorts, PolicyRepository, Subject


class Membership:
    """Every method that changes something returns the endpoints that it concerns."""

    def __init__(
        self,
        store: Store,
        repository: PolicyRepository,
        table: EndpointTable,
        identities: Identities,
    ) -> None:
        self._store, self._repository, self._table = store, repository, table
        self._identities = identities
        self._ports = NamedPortIndex(repository)
        self._labels: dict[int, Labels] = {}  # of each endpoint, as its identity was acquired
        self._waiting: set[int] = set()  # endpoints whose new labels have no identity yet

    def put(self, record: EndpointRecord) -> tuple[EndpointRecord, set[int]]:
        """The record with its identity; raises IdentitiesExhausted, nothing has changed then.

        Where the identity of new labels is still to be had, the endpoint keeps what it has.
        """
        labels, audit = self.labels(record)
        affected: set[int] = set()
        identity: int | None = record.identity
        if self._labels.get(record.id) != labels or not record.identity:
            identity, affected = self._acquire(labels)
            if identity is None:
                self._waiting.add(record.id)
                return record, affected
            affected |= self._release(record.id)
            self._labels[record.id] = labels
        self._waiting.discard(record.id)
        record = replace(record, identity=identity or 0, labels=format_labels(labels))
        ports = compiled(self.named_ports(record))
        subject = Subject(record.identity, labels, audit, ports)
        affected |= self._repository.upsert_endpoint(record.id, subject)
        affected |= self._ports.put(record.id, {record.identity: [ports]})
        self._table.put(record)
        return record, affected

    def remove(self, record: EndpointRecord) -> set[int]:
        self._repository.remove_endpoint(record.id)
        self._table.remove(record.id)
        self._waiting.discard(record.id)
        return (self._ports.put(record.id, {}) | self._release(record.id)) - {record.id}

    def refresh(self, namespace: str, name: str | None = None) -> set[int]:
        """Pods of a namespace (or one of them) may have other labels now."""
        affected: set[int] = set()
        for record in list(self._table):
            if record.pod_namespace == namespace and name in (None, record.pod_name):
                affected |= self.put(record)[1]
        return affected

    def take(self, change: Change) -> set[int]:
        """A Pod, a Namespace or an identity changed in the store."""
        key = change.resource.key
        if change.type is ChangeType.DELETED and key.kind in ("Pod", "Namespace"):
            return set()  # who still runs stays who it was, until CNI says that it is gone
        if key.kind == "Pod":
            return self.refresh(key.namespace, key.name)
        if key.kind == "Namespace":
            return self.refresh(key.name)
        if key.kind == SLICE:
            gone = change.type is ChangeType.DELETED
            return self._ports.put(key, {} if gone else _ports_by_identity(change.resource))
        affected = self._identities.take(change)
        if key.kind == IDENTITY:
            for endpoint_id in tuple(self._waiting):
                if record := self._table.get(endpoint_id):
                    affected |= self.put(record)[1]
        return affected

    def named_ports(self, record: EndpointRecord) -> list[dict[str, Any]]:
        """Of its containers; none while the pod is not known."""
        pod = self._store.get(ResourceKey("Pod", record.pod_namespace, record.pod_name))
        return list(of_pod(pod.manifest)) if pod else []

    def has_pod(self, record: EndpointRecord) -> bool:
        """Whether the store has the very pod, not one of the same name from before."""
        pod = self._store.get(ResourceKey("Pod", record.pod_namespace, record.pod_name))
        uid = (pod.manifest.get("metadata") or {}).get("uid") if pod else None
        return pod is not None and record.pod_uid in ("", uid)

    def labels(self, record: EndpointRecord) -> tuple[Labels, bool]:
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

    def _acquire(self, labels: Labels) -> tuple[int | None, set[int]]:
        if Reserved.INIT.label in labels:
            return Reserved.INIT, set()
        return self._identities.acquire(labels)

    def _release(self, endpoint_id: int) -> set[int]:
        labels = self._labels.pop(endpoint_id, None)
        if labels is None or Reserved.INIT.label in labels:
            return set()
        return self._identities.release(labels)


def _ports_by_identity(resource: Resource) -> dict[int, list[NamedPorts]]:
    """What a slice says of the pods in it."""
    made: dict[int, list[NamedPorts]] = {}
    for endpoint in resource.manifest.get("endpoints") or []:
        ports = compiled(endpoint.get("named-ports") or [])
        made.setdefault(int(endpoint["identity"]), []).append(ports)
    return made
