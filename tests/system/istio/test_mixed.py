"""What a mesh has besides pods with a sidecar: headless Services of a StatefulSet, Jobs, and
servers outside."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from sandbox.cluster import kubectl
from sandbox.images import http_peer
from sandbox.mesh_probes import ask
from sandbox.segment import addresses
from tests.system.cluster_rig import eventually
from tests.system.istio.mesh import MESH

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(240)]

ROUTER = str(addresses(1)[0].ip)  # outside of the cluster


@pytest.fixture(scope="module")
def others(mesh: None) -> Iterator[None]:
    kubectl(MESH, "apply", "-f", "-", text=json.dumps(_OBJECTS))
    try:
        kubectl(MESH, "rollout", "status", "statefulset/shard", "--timeout=90s")
        kubectl(MESH, "wait", "--for=condition=Enforced", "cnp/shard", "--timeout=30s")
        yield
    finally:
        kubectl(MESH, "delete", "--wait=false", "-f", "-", text=json.dumps(_OBJECTS))


def comes(expected: str, who: str, url: str) -> None:
    eventually(expected, lambda: ask(MESH, who, ("--timeout=2s", url)), 20)


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("host", ["shard-0.shard", "shard"])
def test_each_pod_of_a_stateful_set_is_judged_by_its_own_name(host: str) -> None:
    comes("200", "productpage", f"http://{host}:8080/public")
    comes("403", "productpage", f"http://{host}:8080/private")
    comes("none", "legacy", f"http://{host}:8080/public")


@pytest.mark.usefixtures("others")
def test_the_sidecar_of_a_job_is_judged_and_ends_with_it() -> None:
    """Its container fails unless it is answered as policy says."""
    kubectl(MESH, "wait", "--for=condition=Complete", "job/census", "--timeout=90s")
    pods = json.loads(kubectl(MESH, "get", "pods", "-l", "job-name=census", "-o", "json"))["items"]
    ended = [pod for pod in pods if pod["status"]["phase"] == "Succeeded"]
    assert len(ended) == 1
    assert "istio-proxy" in {each["name"] for each in ended[0]["spec"]["initContainers"]}


@pytest.mark.usefixtures("others")
def test_what_is_outside_is_reached_as_l4_rules_say() -> None:
    url = f"http://{ROUTER}:8070/"
    router = ["ip", "netns", "exec", MESH.segment.router_netns]
    with subprocess.Popen([*router, str(http_peer()), "serve", "--http", ":8070"]) as server:
        try:
            for who in ("productpage", "legacy"):
                comes("200", who, url)
            kubectl(MESH, "apply", "-f", "-", text=json.dumps(_NOT_OUTSIDE))
            for who in ("productpage", "legacy"):
                comes("none", who, url)
        finally:
            kubectl(MESH, "delete", "cnp", "not-outside", "--ignore-not-found")
            server.terminate()


def _cnp(name: str, app: str, **rules: object) -> dict[str, object]:
    return {
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": name},
        "spec": {"endpointSelector": {"matchLabels": {"app": app}}, **rules},
    }  # fmt: skip


def _http(path: str) -> list[dict[str, object]]:
    ports = [{"port": "8080", "protocol": "TCP"}]
    return [{"ports": ports, "rules": {"http": [{"method": "GET", "path": path}]}}]


_NOT_OUTSIDE = _cnp("not-outside", "productpage", egressDeny=[{"toCIDR": [f"{ROUTER}/32"]}],
                    egress=[{"toEntities": ["all"]}])  # fmt: skip
_SERVER = {"name": "app", "image": "sidegate.test/http"}
_ASK = """
for _ in $(seq 100); do
  http get --timeout=1s http://shard:8080/public | grep -q '"status":200' && break
  sleep 0.2
done
http get --timeout=1s http://shard:8080/public | grep -q '"status":200' &&
http get --timeout=1s http://shard:8080/private | grep -q '"status":403'
"""
_OBJECTS = {"apiVersion": "v1", "kind": "List", "items": [
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shard"},
     "spec": {"clusterIP": "None", "selector": {"app": "shard"},
              "ports": [{"name": "http", "port": 8080}]}},
    {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "shard"},
     "spec": {"serviceName": "shard", "replicas": 1, "selector": {"matchLabels": {"app": "shard"}},
              "template": {"metadata": {"labels": {"app": "shard"}},
                           "spec": {"containers": [_SERVER]}}}},
    {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "census"},
     "spec": {"backoffLimit": 2, "template": {
         "metadata": {"labels": {"app": "productpage"}}, "spec": {
         "restartPolicy": "Never", "serviceAccountName": "productpage", "containers": [
             {"name": "app", "image": "sidegate.test/client", "command": ["sh", "-c", _ASK]}]}}}},
    _cnp("shard", "shard", ingress=[
        {"fromEndpoints": [{"matchLabels": {"app": "productpage"}}], "toPorts": _http("/public")}]),
]}  # fmt: skip
