"""What tenants may not do to EnvoyFilters, said by the API server when they try."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox.cluster import kubectl, kubectl_command
from tests.system.cluster_rig import eventually
from tests.system.istio.mesh import MESH

pytestmark = [
    pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("mesh"),
]  # fmt: skip

_TABLE = Path(__file__).parent.parent.parent / "golden" / "istioctl" / "touching.yaml"
_CASES = yaml.safe_load(_TABLE.read_text())
_OURS = ("envoyfilters.networking.istio.io", "sidegate-inbound", "-n", "istio-system")
_POLICY = "ValidatingAdmissionPolicy sidegate-envoyfilters"


@pytest.fixture(scope="module")
def tenant(mesh: None) -> Iterator[str]:
    """Somebody who may do anything to EnvoyFilters, in two namespaces."""
    kubectl(MESH, "apply", "-f", "-", text=_TENANT)
    try:
        yield "tenant"
    finally:
        kubectl(MESH, "delete", "-f", "-", text=_TENANT)


def test_each_patch_is_judged_as_analyze_judges_it(tenant: str) -> None:
    """All at once: the API server answers for each, in its order."""
    eventually(True, lambda: _create(tenant, _CASES[:1]).returncode == 0, 30)  # RBAC is seen
    done = _create(tenant, _CASES)
    for n, case in enumerate(_CASES):
        why = next((line for line in done.stderr.splitlines() if f'"t{n}"' in line), "")
        if case["touches"]:
            assert case["touches"] in why, (case, why)
            assert _POLICY in why
        else:
            assert f"/t{n} created" in done.stdout, (case, done.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        ("delete", *_OURS),
        ("delete", "envoyfilters.networking.istio.io", "-n", "istio-system", "--all"),
        ("patch", *_OURS, "--type=merge", '--patch={"spec": {"priority": -1}}'),
        ("label", *_OURS, "app.kubernetes.io/managed-by-"),
    ],
)
def test_ours_are_not_for_tenants(tenant: str, arguments: tuple[str, ...]) -> None:
    done = _run("--as", tenant, *arguments, "--dry-run=server")
    assert done.returncode == 1
    assert "are Sidegate's" in done.stderr, done.stderr
    assert _POLICY in done.stderr


def test_whoever_may_delete_the_policy_is_not_asked(tenant: str) -> None:
    """Namespaces that are deleted are emptied by such a one."""
    controller = "system:serviceaccount:kube-system:namespace-controller"
    assert _run("--as", controller, "delete", *_OURS, "--dry-run=server").returncode == 0
    done = _create("", _CASES)
    assert done.returncode == 0, done.stderr


def _create(user: str, cases: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    """Asks for an EnvoyFilter with each patch, called t0, t1, ...; nothing is created."""
    items = [
        {
            "apiVersion": "networking.istio.io/v1alpha3",
            "kind": "EnvoyFilter",
            "metadata": {"name": f"t{n}", "namespace": "default"},
            "spec": {"configPatches": [case["patch"]]},
        }
        for n, case in enumerate(cases)
    ]
    who = ("--as", user) if user else ()
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    return _run(*who, "create", "--dry-run=server", "-f", "-", text=given)


def _run(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    command = kubectl_command(MESH, *arguments)
    return subprocess.run(
        command, check=False, capture_output=True, text=True, input=text, timeout=60
    )


_TENANT = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: tenant}
rules: [{apiGroups: [networking.istio.io], resources: [envoyfilters], verbs: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant, namespace: default}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: tenant}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: tenant}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant, namespace: istio-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: tenant}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: tenant}]
"""
