"""The kubelet's probes pass under every policy; others on the node's network are judged."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from datapath.facade import Datapath, DatapathConfig
from policy_engine.model import DirectionPolicy
from sandbox.node import Node as SandboxNode
from tests.system.datapath_rig import CLOSED, FAMILIES, A, Rig, http, reach
from tests.system.netns import inside
from tests.system.service_rig import joined


@pytest.fixture
def kubelet() -> Iterator[Path]:
    root = SandboxNode("probes-test").cgroup
    assert root, "these tests need cgroup v2"
    path = root / "kubelet"
    path.mkdir(parents=True)
    yield path
    path.rmdir()
    root.rmdir()


_SNAT = (
    "iptables -t nat -I POSTROUTING -m owner --socket-exists -p tcp --dport 8080 "
    "-j SNAT --to-source 169.254.7.127"
)


def restarted(rig: Rig, kubelet: Path | None) -> None:
    with inside(rig.node.name):
        rig.datapath = Datapath(DatapathConfig(rig.bpf_dir, ("up0",), kubelet_cgroup=kubelet))


@pytest.mark.parametrize("policy", [CLOSED, http(A)], ids=["default deny", "L7 for others"])
@pytest.mark.parametrize("family", FAMILIES)
def test_probes_pass_and_other_host_processes_do_not(
    rig: Rig, kubelet: Path, family: int, policy: DirectionPolicy
) -> None:
    restarted(rig, kubelet)
    rig.set(2, ingress=policy)
    with joined(kubelet):
        seen = reach(rig.node.name, rig.b, family)
    assert seen not in ("dropped", "reset")
    assert reach(rig.node.name, rig.b, family) == "dropped"


def test_probes_pass_with_the_source_address_that_ambient_mode_gives_them(
    rig: Rig, kubelet: Path
) -> None:
    """As istio-cni translates them; who else sends from there is judged."""
    restarted(rig, kubelet)
    rig.set(2, ingress=CLOSED)
    with inside(rig.node.name):
        subprocess.run(_SNAT.split(), check=True)
    with joined(kubelet):
        assert reach(rig.node.name, rig.b).removeprefix("P") == "169.254.7.127"
    assert reach(rig.node.name, rig.b) == "dropped"


def test_nobody_is_the_kubelet_where_its_cgroup_is_not_known(rig: Rig, kubelet: Path) -> None:
    restarted(rig, None)
    rig.set(2, ingress=CLOSED)
    with joined(kubelet):
        assert reach(rig.node.name, rig.b) == "dropped"


def test_a_pod_in_the_kubelets_cgroup_is_judged(rig: Rig, kubelet: Path) -> None:
    restarted(rig, kubelet)
    rig.set(2, ingress=CLOSED)
    with joined(kubelet):
        assert reach(rig.a.netns, rig.b) == "dropped"
