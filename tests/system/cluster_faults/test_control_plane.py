"""What becomes of traffic and of objects when parts of the control plane fail."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from sandbox.cluster import kubectl
from sandbox.images import http_peer
from tests.system import cluster_rig
from tests.system.cluster_faults.shop import (
    CLUSTER,
    ENFORCED,
    NODE_OF,
    NODES,
    ROUTER,
    SYSTEM,
    apply,
    pod,
    policy,
    refused,
    run,
    status,
    verdicts,
)
from tests.system.cluster_rig import agent_of, eventually

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300)]


def test_policy_holds_between_nodes() -> None:
    eventually(ENFORCED, verdicts)


OUTSIDE = {
    "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "outside"},
    "spec": {"endpointSelector": {"matchLabels": {"app": "other"}}, "egress": [{
        "toEntities": ["world"],
        "toPorts": [{"ports": [{"port": "9090", "protocol": "TCP"}],
                     "rules": {"http": [{"method": "GET", "path": "/public.*"}]}}],
    }]},
}  # fmt: skip


def test_http_out_of_the_cluster_is_judged_and_has_the_nodes_address() -> None:
    """The server is the router: beyond every node, and no part of the cluster."""
    segment = CLUSTER.segment
    server = subprocess.Popen(
        [
            "nsenter",
            f"--net=/run/netns/{segment.router_netns}",
            str(http_peer()),
            "serve",
            "--http",
            ":9090",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for policies in (0, 1):
            for here, host in zip(NODE_OF["other"].addresses, ROUTER, strict=True):
                url = f"http://{host}:9090"
                get = (str(http_peer()), "get", "-timeout", "2s")
                eventually(
                    200, lambda u=url, g=get: json.loads(run("other", *g, u + "/public"))["status"]
                )
                said = json.loads(run("other", *get, url + "/public"))
                assert json.loads(said["body"])["remote"].rpartition(":")[0].strip("[]") == here
                denied = json.loads(run("other", *get, url + "/private"))["status"]
                assert denied == (403 if policies else 200)
            apply(OUTSIDE)
            time.sleep(1)
    finally:
        kubectl(CLUSTER, "delete", "cnp", "outside", "--ignore-not-found")
        server.kill()
        server.wait()


def test_status_of_the_cluster() -> None:
    asked = [str(cluster_rig.CLI), "status", "--wait", f"--kubeconfig={CLUSTER.kubeconfig}"]
    done = subprocess.run(asked, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "no problems"), done.stdout
    elsewhere = subprocess.run(
        [*asked[:2], "--cluster", "-n", "nowhere", asked[3]],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert elsewhere.returncode == 1
    assert "sidegate-agent is not installed in nowhere" in elsewhere.stdout


def test_a_change_takes_effect_on_both_layers() -> None:
    apply(policy("/other"))
    eventually([403, 200], lambda: [status("far"), status("far", "/other")])
    apply(policy("/public.*"))
    eventually(ENFORCED, verdicts)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"ingress": [{"fromEntities": ["moon"]}]}, "spec.ingress[0].fromEntities[0]"),
        ({"ingress": [{"fromCIDR": ["10.0.0.0/99"]}]}, "spec.ingress[0].fromCIDR[0]"),
        ({"endpointSelector": None}, "endpointSelector"),
        ({"ingress": [{"toPorts": [{"ports": []}]}]}, "spec.ingress[0].toPorts[0].ports"),
        (
            {"ingress": [{"toPorts": [{"ports": [{"port": "9", "endPort": 8}]}]}]},
            "spec.ingress[0].toPorts[0].ports[0]",
        ),
        (
            {
                "egress": [
                    {
                        "toPorts": [
                            {"ports": [{"port": "53", "protocol": "UDP"}], "rules": {"http": [{}]}}
                        ]
                    }
                ]
            },
            "spec.egress[0].toPorts[0]",
        ),
        (
            {
                "ingress": [
                    {
                        "toPorts": [
                            {"ports": [{"port": "9"}], "rules": {"http": [{}], "kafka": [{}]}}
                        ]
                    }
                ]
            },
            "spec.ingress[0].toPorts[0].rules",
        ),
        ({"ingres": []}, "spec.ingres"),
    ],
)
def test_kubectl_refuses_a_bad_policy_by_its_field(spec: dict[str, Any], field: str) -> None:
    assert field in refused(policy("/x", **spec))
    assert verdicts() == ENFORCED


def test_what_only_the_engine_refuses_is_in_the_status_and_harms_nothing() -> None:
    manifest = policy("/x", ingress=[{"fromNodes": [{}]}]) | {"metadata": {"name": "half"}}
    apply(manifest)

    def conditions(name: str) -> dict[str, str]:
        found = json.loads(kubectl(CLUSTER, "get", "cnp", name, "-ojson")).get("status") or {}
        return {c["type"]: f"{c['status']} {c['message']}" for c in found.get("conditions", [])}

    eventually("False", lambda: conditions("half").get("Valid", "").split(" ")[0])
    assert "spec.ingress[0].fromNodes" in conditions("half")["Valid"]
    eventually("True 1/1 nodes", lambda: conditions("server").get("Enforced"))
    events = kubectl(CLUSTER, "get", "events", "-ojson")
    assert "spec.ingress[0].fromNodes" in events
    assert re.search(r"server +True +1/1 nodes", kubectl(CLUSTER, "get", "cnp"))
    assert verdicts() == ENFORCED
    kubectl(CLUSTER, "delete", "cnp", "half")


def test_an_agent_killed_changes_nothing_and_is_back(tmp_path: Path) -> None:
    before = agent_of(NODES[0])
    os.kill(before, signal.SIGKILL)
    assert verdicts() == ENFORCED
    eventually(True, lambda: agent_of(NODES[0]) not in (0, before), 30)
    apply(policy("/other"))
    eventually([403, 200], lambda: [status("far"), status("far", "/other")], 30)
    apply(policy("/public.*"))
    eventually(ENFORCED, verdicts)


def test_while_the_api_server_is_away_all_holds(api_server_away: None) -> None:
    for _ in range(5):
        assert verdicts() == ENFORCED
        time.sleep(1)


def test_an_agent_that_restarts_while_it_is_away_opens_nothing(api_server_away: None) -> None:
    before = agent_of(NODES[0])
    os.kill(before, signal.SIGKILL)
    for _ in range(5):
        assert verdicts() == ENFORCED
        time.sleep(1)
    socket = NODES[0].root / "run/sidegate/agent.sock"
    asked = ["curl", "-s", "--unix-socket", str(socket), "http://agent/v1/status"]
    said = subprocess.run(asked, check=False, capture_output=True, text=True).stdout
    assert "not ready" in said
    assert "kube-apiserver" in said


def test_changes_are_seen_once_it_is_back() -> None:
    apply(policy("/other"))
    eventually([403, 200], lambda: [status("far"), status("far", "/other")], 60)
    apply(policy("/public.*"))
    eventually(ENFORCED, verdicts, 30)


def test_an_identity_deleted_while_used_comes_back() -> None:
    found = json.loads(kubectl(CLUSTER, "get", "sgid", "-ojson"))["items"]
    number = next(
        i["metadata"]["name"] for i in found if i["security-labels"].get("k8s:app") == "client"
    )
    kubectl(CLUSTER, "delete", "sgid", number)
    eventually(
        f"{number}\n",
        lambda: kubectl(
            CLUSTER,
            "get",
            "sgid",
            number,
            "--ignore-not-found",
            "-ojsonpath={.metadata.name}{'\\n'}",
        ),
    )
    eventually(ENFORCED, verdicts)


def test_an_agent_writes_of_its_own_node_only() -> None:
    """With its token, as somebody would who has taken a node."""
    found = json.loads(kubectl(CLUSTER, "-n", SYSTEM, "get", "pod", "-ojson"))["items"]
    agent = next(p["metadata"]["name"] for p in found
                 if p["metadata"]["name"].startswith("sidegate-agent")
                 and p["spec"]["nodeName"] == NODES[0].name)  # fmt: skip
    token = kubectl(
        CLUSTER, "-n", SYSTEM, "create", "token", "sidegate-agent",
        "--bound-object-kind=Pod", f"--bound-object-name={agent}",
    ).strip()  # fmt: skip
    server = json.loads(kubectl(CLUSTER, "config", "view", "--raw", "-ojson"))["clusters"][0]
    with httpx.Client(
        base_url=server["cluster"]["server"], verify=False, timeout=10,
        headers={"Authorization": f"Bearer {token}"},
    ) as stolen:  # fmt: skip
        path = "/apis/policy.sidegate.io/v2/sidegateendpointslices"
        for node, code in ((NODES[0].name, 201), (NODES[1].name, 422)):
            said = stolen.post(path, json={
                "apiVersion": "policy.sidegate.io/v2", "kind": "SidegateEndpointSlice",
                "metadata": {"name": f"{node}-77"}, "node": node, "endpoints": [],
            })  # fmt: skip
            assert said.status_code == code, said.text
        assert "writes what is of its own node only" in said.text
        assert stolen.delete(f"{path}/{NODES[0].name}-77").status_code == 200
        assert stolen.delete(f"{path}/{NODES[1].name}-0").status_code == 422
    assert verdicts() == ENFORCED


def test_the_other_operator_takes_over() -> None:
    def holder() -> str:
        return kubectl(
            CLUSTER,
            "-n",
            SYSTEM,
            "get",
            "lease",
            "sidegate-operator",
            "-ojsonpath={.spec.holderIdentity}",
        )

    before = holder()
    kubectl(CLUSTER, "-n", SYSTEM, "delete", "pod", before, "--wait=false")
    eventually(True, lambda: holder() not in ("", before), 40)


def test_a_pod_that_is_made_anew_has_its_policy_from_the_first_packet() -> None:
    kubectl(CLUSTER, "delete", "pod", "server", "--now")
    apply(pod("server", "server", NODES[0].name, "http", "serve", "--http", ":8080"))
    kubectl(CLUSTER, "wait", "--for=condition=Ready", "pod", "server", "--timeout=60s")
    assert status("other") == 0
    eventually(ENFORCED, verdicts)
