"""The same policy gives the same verdicts, whether client, server, both or none have a sidecar."""

from __future__ import annotations

import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

from sandbox import probes
from sandbox.cluster import kubectl, kubectl_command
from sandbox.probes import Probe
from tests.system.istio.mesh import MESH

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]

TABLE = yaml.safe_load(Path(__file__).with_name("same_verdicts.yaml").read_text())
PAIRS = tuple(itertools.product(("sidecar", "plain"), ("sidecar", "plain")))
NAMESPACE = "mixed"
AT = ("-n", NAMESPACE)
PATIENCE = 12.0  # a request that a closed port has swallowed holds its connection for a while


@pytest.fixture(scope="module")
def mixed(mesh: None) -> Iterator[None]:
    kubectl(MESH, "create", "namespace", NAMESPACE)
    try:
        kubectl(MESH, "label", "namespace", NAMESPACE, "istio-injection=enabled")
        for name in ("client", "other"):
            kubectl(MESH, "create", "serviceaccount", name, *AT)
        kubectl(MESH, "apply", *AT, "-f", "-", text=_pods())
        kubectl(MESH, "wait", *AT, "--for=condition=Ready", "pods", "--all", "--timeout=120s")
        yield
    finally:
        kubectl(MESH, "delete", "namespace", NAMESPACE)


@pytest.mark.usefixtures("mixed")
@pytest.mark.parametrize("case", TABLE, ids=[case["name"] for case in TABLE])
def test_a_policy_means_the_same_with_and_without_sidecars(case: dict[str, Any]) -> None:
    kubectl(MESH, "delete", *AT, "cnp", "case", "--ignore-not-found")
    rules = {key: value for key, value in case.items() if key not in ("name", "asks")}
    if rules:
        who = "client" if "egress" in rules else "server"
        kubectl(MESH, "apply", *AT, "-f", "-", text=_policy(who, rules))
        kubectl(MESH, "wait", *AT, "--for=condition=Enforced", "cnp/case", "--timeout=20s")
    asked = list(itertools.product(PAIRS, case["asks"]))
    with ThreadPoolExecutor(8) as pool:
        seen = list(
            pool.map(lambda each: _seen(each[1], each[0][0], each[0][1], "egress" in case), asked)
        )
    wrong = {
        f"{ask} by {client} of {server}": got
        for ((client, server), ask), got in zip(asked, seen, strict=True)
        if got != str(ask["expect"])
    }
    assert wrong == {}


def _policy(who: str, rules: dict[str, Any]) -> str:
    """What goes out may also ask for names."""
    if "egress" in rules:
        names = {"toEndpoints": [{"matchLabels": {"io.kubernetes.pod.namespace": "kube-system"}}],
                 "toPorts": [{"ports": [{"port": "53", "protocol": "ANY"}]}]}  # fmt: skip
        mesh = {"toEndpoints": [{"matchLabels": {"io.kubernetes.pod.namespace": "istio-system"}}]}
        rules = {**rules, "egress": [*rules["egress"], names, mesh]}
    policy = {
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "case"},
        "spec": {"endpointSelector": {"matchLabels": {"app": who}}, **rules},
    }  # fmt: skip
    return json.dumps(policy)


def _seen(ask: dict[str, Any], client: str, server: str, egress: bool) -> str:
    """What comes of it, once it is what is expected or patience ends."""
    limit = time.monotonic() + PATIENCE
    own = egress and client == "sidecar" and ask["expect"] == "none"
    while True:
        said = _ask(ask, client, server)
        if own and said in ("403", "PermissionDenied"):
            return "none"
        if said == str(ask["expect"]) or time.monotonic() > limit:
            return said
        time.sleep(0.3)


def _ask(ask: dict[str, Any], client: str, server: str) -> str:
    pod = f"{ask['who']}-{client}"
    if "kafka" in ask:
        probe = Probe(pod, "", kafka=ask["kafka"])
        done = _in(pod, probes.kafka_command(probe, f"kafka-{server}:9092"))
        said = probes.kafka_seen(probe, done.returncode, done.stdout, done.stderr)
        return "none" if said == "dropped" else said
    if "grpc" in ask:
        method = ("--method", ask["grpc"]) if ask["grpc"] else ()
        told = _last(_in(pod, ["http", "grpc", "--timeout=1s", *method, f"server-{server}:8081"]))
        return (
            "none"
            if told.get("code") in (None, "Unavailable", "DeadlineExceeded")
            else told["code"]
        )
    verb, path = ask["http"].split()
    options = ["--header", ask["header"]] if "header" in ask else []
    options += ["--http2"] if ask.get("http2") else []
    url = f"http://server-{server}:8080{path}"
    told = _last(_in(pod, ["http", "get", "--timeout=1s", "--method", verb, *options, url]))
    return "none" if told.get("status") in (None, 0, 503) else str(told["status"])


def _in(pod: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    within = kubectl_command(MESH, "exec", "-i", *AT, pod, "-c", "app", "--", *command)
    return subprocess.run(
        within, check=False, capture_output=True, text=True, input=probes.TEXT, timeout=20
    )


def _last(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    lines = done.stdout.splitlines()
    told: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return told


def _pods() -> str:
    items: list[dict[str, Any]] = [_PERMISSIVE]
    for kind in ("sidecar", "plain"):
        for app in ("client", "other"):
            items.append(_pod(kind, app, app, {"image": "sidegate.test/client"}))
        server = {"image": "sidegate.test/http", "args": ["--grpc", ":8081"]}
        items.append(_pod(kind, "server", "server", server))
        items.append(_pod(kind, "kafka", "server", _broker(kind)))
        items.append(_service(f"server-{kind}", {"http": 8080, "grpc": 8081}))
        items.append(_service(f"kafka-{kind}", {"tcp-kafka": 9092}))
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": items})


def _pod(kind: str, name: str, app: str, container: dict[str, Any]) -> dict[str, Any]:
    inject = str(kind == "sidecar").lower()
    account = {"serviceAccountName": app} if app != "server" else {}
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": f"{name}-{kind}", "labels": {"app": app, "name": f"{name}-{kind}"},
                     "annotations": {"sidecar.istio.io/inject": inject}},
        "spec": {**account, "containers": [{"name": "app", **container}]},
    }  # fmt: skip


def _broker(kind: str) -> dict[str, Any]:
    listeners = {"name": "KAFKA_ADVERTISED_LISTENERS", "value": f"PLAINTEXT://kafka-{kind}:9092"}
    topic = "kcat -b localhost:9092 -L -t audit | grep -q 'leader 1'"  # who asks for it makes it
    ready = {"exec": {"command": ["sh", "-c", topic]}, "timeoutSeconds": 5}
    return {"image": "apache/kafka:4.1.0", "env": [listeners], "readinessProbe": ready}


def _service(name: str, ports: dict[str, int]) -> dict[str, Any]:
    listed = [{"name": port, "port": number} for port, number in ports.items()]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"name": name}, "ports": listed}}  # fmt: skip


_PERMISSIVE = {
    "apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
    "metadata": {"name": "permissive"}, "spec": {"mtls": {"mode": "PERMISSIVE"}},
}  # fmt: skip
