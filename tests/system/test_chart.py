"""The chart against a real API server: what it takes, what runs, and what is left of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.binaries import binary
from sandbox.cluster import SYSTEM, await_rollout, install, kubectl, nodes_of
from sandbox.control_plane import Cluster
from tests.system import cluster_rig
from tests.unit.test_chart import GOLDEN

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(600)]

CLUSTER = Cluster("chart")
NODES = nodes_of(CLUSTER, 2)
POLICY = """
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: dns, namespace: kube-system}
spec: {endpointSelector: {}, ingress: [{fromEntities: [all]}]}
"""


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    with cluster_rig.running(CLUSTER, len(NODES)):
        kubectl(CLUSTER, "create", "namespace", SYSTEM)
        yield


def sidegate(verb: str, *arguments: str) -> None:
    done = subprocess.run(
        [str(cluster_rig.CLI), verb, f"--helm={binary('helm', 'helm')}",
         f"--kubeconfig={CLUSTER.kubeconfig}", "--timeout=60", *arguments],
        check=False, capture_output=True, text=True, timeout=90,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def get(*arguments: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(kubectl(CLUSTER, "get", *arguments, "-ojson"))["items"]
    return items


@pytest.mark.parametrize("variant", ["defaults", "chained"])
def test_the_api_server_takes_every_object(variant: str) -> None:
    golden = str(GOLDEN / f"{variant}.yaml")
    arguments = cluster_rig.kubectl(CLUSTER, "apply", "--dry-run=server", "--validate=strict", "-f")
    done = subprocess.run([*arguments, golden], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


def test_install_upgrade_uninstall() -> None:
    install(CLUSTER)
    await_rollout(CLUSTER)
    for node in NODES:
        assert (node.root / "opt/cni/bin/sidegate-cni").exists()
        module = node.root / "var/lib/sidegate/modules/current/libsidegate.so"
        assert module.parent.is_symlink()
        assert module.exists()
    rights_suffice()

    sidegate("upgrade", "--set=agent.logLevel=debug,metrics.enabled=true")
    await_rollout(CLUSTER)
    assert "# TYPE sidegate_" in scraped(NODES[0].addresses[0], 9440)
    agent = get("ds", "-n", SYSTEM)[0]["spec"]["template"]["spec"]["containers"][0]
    assert "--log-level=debug" in agent["args"]
    assert "--kubelet-cgroup=/sys/fs/cgroup/kubelet" in agent["args"]

    sidegate("uninstall")
    kinds = "ds,deploy,job,role,rolebinding,netpol,pdb"
    assert get(kinds, "-n", SYSTEM) == []
    assert [r for r in get("clusterrole,clusterrolebinding") if "sidegate" in str(r)] == []
    for node in NODES:
        assert list((node.root / "etc/cni/net.d").iterdir()) == []
        assert enforced(node.netns) == []
        assert not (node.root / "run/sidegate/envoy").exists()


def rights_suffice() -> None:
    """A policy comes into force and its status says so; nobody was refused anything."""
    kubectl(CLUSTER, "apply", "-f", "-", text=POLICY)
    policy = ("-n", "kube-system", "cnp/dns", "--timeout=30s")
    kubectl(CLUSTER, "wait", "--for=condition=Valid", *policy)
    kubectl(CLUSTER, "wait", "--for=condition=Enforced", *policy)
    for pod in get("pods", "-n", SYSTEM):
        said = kubectl(CLUSTER, "-n", SYSTEM, "logs", pod["metadata"]["name"])
        assert "forbidden" not in said.lower()


def scraped(address: str, port: int) -> str:
    """What Prometheus would be told, asked from elsewhere in the cluster's network."""
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{CLUSTER.netns}",
         "curl", "-sf", "-m", "10", f"http://{address}:{port}/metrics"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout


def enforced(netns: str) -> list[str]:
    """What the datapath leaves in a node's network: its device, its rules."""
    done = subprocess.run(
        ["nsenter", f"--net=/run/netns/{netns}", "sh", "-c", "ip -o link; ip rule; ip -6 rule"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return [line for line in done.stdout.splitlines() if "sg_hairpin" in line or "2004" in line]
