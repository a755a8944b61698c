"""`sidegate-istioctl` against a mesh: what it passes through, checks, finds, and takes away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.binaries import binary
from sandbox.cluster import kubectl
from sandbox.istio_quickstart import install_istio
from sandbox.mesh_probes import EXAMPLE, ask
from tests.system.cluster_rig import eventually
from tests.system.istio.mesh import MESH, enforces

pytestmark = [
    pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("mesh"),
]  # fmt: skip

OURS = str(Path(sys.executable).parent / "sidegate-istioctl")
READ = ("--timeout=2s", "http://reviews:8080/reviews/1")


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    tools = f"{binary('kubernetes', '')}:{binary('istio', '')}"
    env = {
        **os.environ,
        "PATH": f"{tools}:{os.environ['PATH']}",
        "KUBECONFIG": str(MESH.kubeconfig),
    }
    return subprocess.run(
        [program, *arguments], check=False, capture_output=True, text=True, env=env, timeout=120
    )


@pytest.mark.parametrize(
    "command",
    ["proxy-status", "version", "version -o json", "no-such-command", "analyze --no-such-flag",
     "proxy-config --help", "validate", "uninstall --revision none -y"],
)  # fmt: skip
def test_what_is_istioctls_has_its_output_and_exit_code(command: str) -> None:
    ours, theirs = run(OURS, *command.split()), run("istioctl", *command.split())
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert ours.stderr.startswith(theirs.stderr)


def test_the_install_is_verified() -> None:
    done = run(OURS, "verify-install")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✘" not in done.stdout
    kubectl(MESH, *FILTER, "--type=merge", '--patch={"spec": {"priority": 7}}')
    try:
        done = run(OURS, "verify-install", "-o", "json")
    finally:
        kubectl(MESH, *FILTER, "--type=merge", '--patch={"spec": {"priority": 1000}}')
    wrong = [each for each in json.loads(done.stdout)["checks"] if not each["ok"]]
    assert done.returncode == 1
    assert [each["object"] for each in wrong] == ["EnvoyFilter istio-system/sidegate-inbound"]
    assert "spec.priority" in wrong[0]["problem"]


def test_analyze_adds_what_it_finds_to_istioctls() -> None:
    assert run(OURS, "analyze").returncode == 0
    kubectl(MESH, "apply", "-f", "-", text=_WRONG)
    try:
        lines, data = run(OURS, "analyze"), run(OURS, "analyze", "-o", "json")
        elsewhere = run(OURS, "analyze", "-n", "kube-system")
    finally:
        kubectl(MESH, "delete", "-f", "-", text=_WRONG)
    assert lines.returncode == 79, lines.stdout + lines.stderr
    codes = {each["code"] for each in json.loads(data.stdout)}
    assert codes >= {"SG0105", "SG0106", "IST0135"}
    assert data.returncode == 0
    assert "Error [SG0105] (EnvoyFilter default/tenant)" in lines.stdout
    assert "Warning [SG0106] (Pod default/in-ambient)" in lines.stdout
    assert "SG01" not in elsewhere.stdout


def test_uninstall_leaves_plain_istio() -> None:
    kubectl(MESH, "delete", "cnp/reviews")
    try:
        done = run(OURS, "uninstall", "-y")
        assert done.returncode == 0, done.stderr
        assert run(OURS, "verify-install").returncode == 1
        replace_reviews()
        assert "csi.sidegate.io" not in kubectl(MESH, "get", "pod", "reviews", "-o", "yaml")
        eventually("200", lambda: ask(MESH, "productpage", READ), 20)
        assert ask(MESH, "legacy", READ) == "none", "it is mTLS still"
        assert run("istioctl", "proxy-status").returncode == 0
    finally:
        install_istio(MESH)
        replace_reviews()
        kubectl(MESH, "apply", "-f", str(EXAMPLE))
    eventually(True, lambda: enforces("default/reviews"), 30)
    eventually("200", lambda: ask(MESH, "productpage", READ), 20)
    assert ask(MESH, "mallory", READ) == "403"
    assert run(OURS, "verify-install").returncode == 0


def replace_reviews() -> None:
    """Made anew, as the injector is now."""
    kubectl(MESH, "delete", "pod", "reviews")
    kubectl(MESH, "apply", "-f", str(EXAMPLE / "app.yaml"))
    kubectl(MESH, "wait", "--for=condition=Ready", "pod/reviews", "--timeout=60s")


FILTER = ("patch", "-n", "istio-system", "envoyfilters.networking.istio.io", "sidegate-inbound")
_WRONG = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: tenant}
spec:
  workloadSelector: {labels: {app: nobody}}
  configPatches:
    - applyTo: LISTENER
      match: {context: SIDECAR_INBOUND}
      patch: {operation: REMOVE}
---
apiVersion: v1
kind: Pod
metadata:
  name: in-ambient
  labels: {app: reviews, sidecar.istio.io/inject: "false", istio.io/dataplane-mode: ambient}
spec: {containers: [{name: app, image: sidegate.test/client}]}
"""
