"""The CRDs, as plain objects: ``python -m cluster_operator.crds DIRECTORY`` writes them as YAML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

from cluster_operator import policy_schema
from kube_store.gateway_kinds import POOL, POOL_VERSION
from kube_store.resource import plural
from kube_store.shared import GROUP, IDENTITY, REPORT, SLICE
from policy_engine.kinds import API_VERSIONS, CLUSTERWIDE, CRD_KINDS, KINDS

SCHEMA_VERSION = 3  # raised with every change: an operator leaves what a newer one installed
VERSION_ANNOTATION = "policy.sidegate.io/schema-version"
MANAGED_BY = {"app.kubernetes.io/managed-by": "sidegate"}
DIRECTORY = Path(__file__).parent.parent / "sidegate_api" / "crds"

_TEXT, _NUMBER, _FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}


def definitions() -> list[dict[str, Any]]:
    """Policies of both groups, pools of addresses, then what agents and operator share."""
    policies = [_policy(kind) for kind in CRD_KINDS]
    return [*policies, _pools(), _identities(), _endpoint_slices(), _policy_reports()]


def _policy(kind: str) -> dict[str, Any]:
    short = KINDS[kind]
    specs = {"type": "array", "maxItems": 100, "items": policy_schema.spec(rules=False)}
    schema = {
        "type": "object",
        "properties": {
            **_HEAD,
            "spec": policy_schema.spec(rules=True),
            "specs": specs,
            "status": _status(),
        },
        "x-kubernetes-validations": [
            {"rule": "has(self.spec) || has(self.specs)", "message": "give spec or specs"}
        ],
    }
    group, _, version = API_VERSIONS[kind].partition("/")
    return _definition(
        group, version, kind, short, schema, short in CLUSTERWIDE,
        columns=[
            ("Valid", "string", ".status.conditions[?(@.type=='Valid')].status"),
            ("Enforced", "string", ".status.conditions[?(@.type=='Enforced')].message"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ],
    )  # fmt: skip


def _status() -> dict[str, Any]:
    condition = {
        "type": "object",
        "properties": {
            "type": _TEXT, "status": _TEXT, "reason": _TEXT, "message": _TEXT,
            "observedGeneration": _NUMBER,
            "lastTransitionTime": {"type": "string", "format": "date-time"},
        },
        "required": ["type", "status"],
    }  # fmt: skip
    listed = {
        "type": "array",
        "items": condition,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
    }
    return {"type": "object", "properties": {"conditions": listed}}


def _identities() -> dict[str, Any]:
    labels = {"type": "object", "additionalProperties": _TEXT, "maxProperties": 256}
    schema = {
        "type": "object",
        "properties": {**_HEAD, "security-labels": labels},
        "required": ["security-labels"],
        "x-kubernetes-validations": [
            {"rule": "self.metadata.name.matches('^[0-9]+$')",
             "message": "the name of an identity is its number"},
            {"rule": "self.security__dash__labels == oldSelf.security__dash__labels",
             "message": "labels of an identity do not change"},
        ],
    }  # fmt: skip
    return _definition(
        GROUP, "v2", IDENTITY, "sgid", schema, True, status=False,
        columns=[
            ("Namespace", "string", r".security-labels.k8s:io\.kubernetes\.pod\.namespace"),
            ("Age", "date", ".metadata.creationTimestamp"),
        ],
    )  # fmt: skip


def _pools() -> dict[str, Any]:
    block = {"type": "object", "properties": {"cidr": _TEXT, "start": _TEXT, "stop": _TEXT}}
    spec = {
        "type": "object",
        "properties": {
            "blocks": {"type": "array", "items": block, "maxItems": 1000},
            "serviceSelector": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "allowFirstLastIPs": _TEXT,
            "disabled": _FLAG,
        },
    }
    schema = {"type": "object", "properties": {**_HEAD, "spec": spec}, "required": ["spec"]}
    group, _, version = POOL_VERSION.partition("/")
    return _definition(
        group, version, POOL, "ippool", schema, True, status=False,
        columns=[("Disabled", "boolean", ".spec.disabled"),
                 ("Age", "date", ".metadata.creationTimestamp")],
    )  # fmt: skip


def _endpoint_slices() -> dict[str, Any]:
    port = {"type": "object", "properties": {"name": _TEXT, "port": _NUMBER, "protocol": _TEXT}}
    endpoint = {
        "type": "object",
        "properties": {
            "namespace": _TEXT, "name": _TEXT, "identity": _NUMBER, "ipv4": _TEXT, "ipv6": _TEXT,
            "named-ports": {"type": "array", "items": port}, "service-account": _TEXT,
        },
        "required": ["namespace", "name", "identity"],
    }  # fmt: skip
    schema = {
        "type": "object",
        "properties": {**_HEAD, "node": _TEXT,
                       "endpoints": {"type": "array", "items": endpoint, "maxItems": 256}},
        "required": ["node"],
    }  # fmt: skip
    return _definition(
        GROUP, "v2", SLICE, "sges", schema, True, status=False,
        columns=[("Node", "string", ".node"), ("Age", "date", ".metadata.creationTimestamp")],
    )  # fmt: skip


def _policy_reports() -> dict[str, Any]:
    report = {
        "type": "object",
        "properties": {"generation": _NUMBER, "valid": _FLAG, "enforced": _FLAG,
                       "endpoints": _NUMBER, "message": _TEXT, "limits": _TEXT},
    }  # fmt: skip
    names = ("kind", "namespace", "name", "section", "message")
    refusal = {"type": "object", "properties": dict.fromkeys(names, _TEXT)}
    schema = {
        "type": "object",
        "properties": {**_HEAD, "node": _TEXT,
                       "policies": {"type": "object", "additionalProperties": report},
                       "gateways": {"type": "object", "additionalProperties": refusal}},
    }  # fmt: skip
    return _definition(
        GROUP, "v2", REPORT, "sgpr", schema, True, status=False,
        columns=[("Age", "date", ".metadata.creationTimestamp")],
    )  # fmt: skip


_HEAD = {"apiVersion": _TEXT, "kind": _TEXT, "metadata": {"type": "object"}}


def _definition(
    group: str, version: str, kind: str, short: str, schema: dict[str, Any], clusterwide: bool,
    columns: list[tuple[str, str, str]], status: bool = True,
) -> dict[str, Any]:  # fmt: skip
    served: dict[str, Any] = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": [
            {"name": name, "type": kind_, "jsonPath": path} for name, kind_, path in columns
        ],
    }
    if status:
        served["subresources"] = {"status": {}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural(kind)}.{group}",
            "labels": dict(MANAGED_BY),
            "annotations": {VERSION_ANNOTATION: str(SCHEMA_VERSION)},
        },
        "spec": {
            "group": group,
            "scope": "Cluster" if clusterwide else "Namespaced",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural(kind),
                      "singular": kind.lower(), "shortNames": [short], "categories": ["sidegate"]},
            "versions": [served],
        },
    }  # fmt: skip


class _Plain(yaml.SafeDumper):
    """Without anchors: kubectl reads them, people do not."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


def text(definition: dict[str, Any]) -> str:
    return yaml.dump(definition, Dumper=_Plain, sort_keys=False, width=100)


def write(directory: Path) -> None:
    """One file each, named after the CRD. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    for definition in definitions():
        (directory / f"{definition['metadata']['name']}.yaml").write_text(text(definition))


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else DIRECTORY)
