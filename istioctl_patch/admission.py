"""The ValidatingAdmissionPolicy that keeps tenants from touching our EnvoyFilters, and from taking
their filters out of a proxy (docs/adr/0020). Pure.

Source: Kubernetes documentation, "Validating Admission Policy" and "CEL in Kubernetes".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from istioctl_patch.names import MANAGED_BY
from istioctl_patch.touching import TOUCHES

NAME = "sidegate-envoyfilters"
_API = "admissionregistration.k8s.io"
_PURPOSE = "tenants leave Sidegate's filters alone"
# Who may delete the policy can do without it; so it asks nothing of those, among them the
# controllers that empty a namespace which is deleted.
_MAY_DELETE = (
    f'authorizer.group("{_API}").resource("validatingadmissionpolicies").name("{NAME}")'
    '.check("delete").allowed()'
)
_REMEDY = f"or have somebody apply it who may delete ValidatingAdmissionPolicy {NAME}"


def guard(filters: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The policy and its binding; ``filters`` are our EnvoyFilters, all of one namespace."""
    (label, value), *_ = MANAGED_BY.items()
    namespace = filters[0]["metadata"]["namespace"]
    names = [each["metadata"]["name"] for each in filters]
    ours = (
        f"variables.held.metadata.namespace == {json.dumps(namespace)} && "
        f"variables.held.metadata.name in {json.dumps(names)} || "
        f'variables.held.metadata.?labels[?"{label}"].orValue("") == {json.dumps(value)}'
    )
    mine = {
        "expression": f"!({ours})",
        "message": f"EnvoyFilters {', '.join(names)} of {namespace}, and whatever has the label "
        f"{label}={value}, are Sidegate's: change them with sidegate-istioctl install or "
        f"uninstall, as somebody who may delete ValidatingAdmissionPolicy {NAME}",
        "reason": "Forbidden",
    }
    touching = [
        {
            "expression": f"!variables.patches.exists(p, {each.cel()})",
            "message": f"spec.configPatches: one {each.what}: {each.instead}, {_REMEDY}",
            "reason": "Forbidden",
        }
        for each in TOUCHES
    ]
    rule = {
        "apiGroups": ["networking.istio.io"],
        "apiVersions": ["*"],
        "operations": ["CREATE", "UPDATE", "DELETE"],
        "resources": ["envoyfilters"],
    }
    policy = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "matchConditions": [
            {"name": "may-not-delete-this-policy", "expression": f"!{_MAY_DELETE}"}
        ],
        "variables": [
            {"name": "held", "expression": "object == null ? oldObject : object"},
            {
                "name": "patches",
                "expression": "object == null ? [] : object.?spec.?configPatches.orValue([])",
            },
        ],
        "validations": [mine, *touching],
    }
    return [
        _object("ValidatingAdmissionPolicy", policy),
        _object(
            "ValidatingAdmissionPolicyBinding",
            {"policyName": NAME, "validationActions": ["Deny"]},
        ),
    ]


def _object(kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": f"{_API}/v1",
        "kind": kind,
        "metadata": {
            "name": NAME,
            "labels": dict(MANAGED_BY),
            "annotations": {"policy.sidegate.io/purpose": _PURPOSE},
        },
        "spec": dict(spec),
    }
