"""The ways to install Istio and to be injected: revisions side by side, istio-init and istio-cni,
native and classic sidecars, REDIRECT and TPROXY. The same policy holds in each.

istio-cni is its plugin, chained behind ours; who installs that on nodes (its node agent) is not
run here.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from sandbox.binaries import binary
from sandbox.cluster import kubectl
from sandbox.istio_quickstart import istioctl
from sandbox.mesh_probes import ask
from tests.system.cluster_rig import eventually
from tests.system.istio.mesh import MESH, NODES, sidecars

pytestmark = [
    pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("mesh"),
]  # fmt: skip

CNI_RUN_DIR = "/var/lib/cni/istio"


@pytest.mark.parametrize(
    ("annotations", "init"),
    [
        ({}, ["istio-init", "istio-proxy"]),
        ({"sidecar.istio.io/nativeSidecar": "false"}, ["istio-init"]),
        ({"sidecar.istio.io/interceptionMode": "TPROXY"}, ["istio-init", "istio-proxy"]),
    ],
    ids=["native", "classic", "TPROXY"],
)
def test_a_pod_enforces_however_it_is_injected(
    annotations: dict[str, str], init: list[str]
) -> None:
    with pod("default", annotations):
        assert init_containers("default") == init
        policy_holds("default")


@pytest.fixture(scope="module")
def canary() -> Iterator[str]:
    """A namespace of a second revision, whose pods are intercepted by istio-cni."""
    with contextlib.ExitStack() as stack:
        istioctl(MESH, "install", *_CANARY)
        stack.callback(istioctl, MESH, "uninstall", "-y", "--revision", "canary")
        chain_istio_cni(stack)
        kubectl(MESH, "create", "namespace", "canary")
        stack.callback(kubectl, MESH, "delete", "namespace", "canary")
        kubectl(MESH, "label", "namespace", "canary", "istio.io/rev=canary")
        yield "canary"


def test_each_revision_injects_the_module(canary: str) -> None:
    said = json.loads(istioctl(MESH, "verify-install", "-o", "json"))
    templates = [c["object"] for c in said["checks"] if c["what"] == "injection template"]
    assert templates == [
        "ConfigMap istio-system/istio-sidecar-injector",
        "ConfigMap istio-system/istio-sidecar-injector-canary",
    ]
    with pod(canary, {}), pod("default", {}):
        assert init_containers(canary) == ["istio-validation", "istio-proxy"], "by istio-cni"
        policy_holds(canary)
        policy_holds("default")


@pytest.mark.usefixtures("canary")
def test_a_revision_that_goes_leaves_the_other_whole() -> None:
    istioctl(MESH, "uninstall", "-y", "--revision", "canary")
    try:
        eventually(True, verified, 30)
        with pod("default", {}):
            policy_holds("default")
    finally:
        istioctl(MESH, "install", *_CANARY)


def verified() -> bool:
    """Not while an istiod that goes is asked for its version."""
    with contextlib.suppress(subprocess.CalledProcessError):
        return bool(json.loads(istioctl(MESH, "verify-install", "-o", "json"))["ok"])
    return False


def policy_holds(namespace: str) -> None:
    """productpage may read it and do nothing else, mallory nothing."""
    url = f"http://variant.{namespace}:8080/"
    eventually("200", lambda: ask(MESH, "productpage", ("--timeout=2s", url)), 30)
    assert ask(MESH, "productpage", ("--method", "DELETE", url)) == "403"
    assert ask(MESH, "mallory", (url,)) == "403"
    assert sidecars()[f"{namespace}/variant"]["lease"]


@contextlib.contextmanager
def pod(namespace: str, annotations: dict[str, str]) -> Iterator[None]:
    manifests = _VARIANT.format(annotations=json.dumps(annotations))
    kubectl(MESH, "apply", "-n", namespace, "-f", "-", text=manifests)
    try:
        kubectl(MESH, "wait", "-n", namespace, "--for=condition=Ready", "pod/variant",
                "--timeout=60s")  # fmt: skip
        yield
    finally:
        kubectl(MESH, "delete", "-n", namespace, "-f", "-", text=manifests)


def init_containers(namespace: str) -> list[str]:
    path = "{.spec.initContainers[*].name}"
    return kubectl(MESH, "get", "pod", "variant", "-n", namespace, "-o", f"jsonpath={path}").split()


def chain_istio_cni(stack: contextlib.ExitStack) -> None:
    """As Istio's node agent does it: behind what is there, with the API server's address on the
    node. The injector is told by the value that ``components.cni.enabled`` sets."""
    name = ("configmap", "istio-sidecar-injector-canary", "-n", "istio-system")
    values = json.loads(kubectl(MESH, "get", *name, "-o", "jsonpath={.data.values}"))
    values["pilot"]["cni"]["enabled"] = True
    patch = {"data": {"values": json.dumps(values)}}
    kubectl(MESH, "patch", *name, "--type=merge", f"--patch={json.dumps(patch)}")
    address = "{.endpoints[0].addresses[0]}:{.ports[0].port}"
    server = kubectl(MESH, "get", "endpointslices", "kubernetes", "-o", f"jsonpath={address}")
    kubeconfig = yaml.safe_load(MESH.kubeconfig.read_text())
    kubeconfig["clusters"][0]["cluster"]["server"] = f"https://{server}"
    for node in NODES:
        shutil.copy(binary("istio-cni", "istio-cni"), node.root / "opt/cni/bin")
        run_dir = node.root / CNI_RUN_DIR.lstrip("/")
        run_dir.mkdir(parents=True)
        (run_dir / "istio-cni-kubeconfig").write_text(yaml.safe_dump(kubeconfig))
        path = node.root / "etc/cni/net.d/05-sidegate.conflist"
        before = path.read_text()
        chain = json.loads(before)
        chain["plugins"].append({"type": "istio-cni", "cni_agent_run_dir": CNI_RUN_DIR})
        path.write_text(json.dumps(chain))
        stack.callback(path.write_text, before)
        stack.callback(shutil.rmtree, run_dir)


_CANARY = ("-y", "--stock-envoy", "--set", "profile=minimal", "--revision", "canary")
_VARIANT = """
apiVersion: v1
kind: Service
metadata: {{name: variant}}
spec: {{selector: {{app: variant}}, ports: [{{name: http, port: 8080}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: variant, labels: {{app: variant}}, annotations: {annotations}}}
spec: {{containers: [{{name: app, image: sidegate.test/http}}]}}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {{name: variant}}
spec:
  endpointSelector: {{matchLabels: {{app: variant}}}}
  ingress:
    - fromEndpoints:
        - matchLabels: {{app: productpage, "k8s:io.kubernetes.pod.namespace": default}}
      toPorts: [{{ports: [{{port: "8080", protocol: TCP}}], rules: {{http: [{{method: GET}}]}}}}]
    - fromEndpoints: [{{matchLabels: {{"k8s:io.kubernetes.pod.namespace": default}}}}]
      toPorts: [{{ports: [{{port: "8080", protocol: TCP}}], rules: {{http: [{{path: /health}}]}}}}]
"""
