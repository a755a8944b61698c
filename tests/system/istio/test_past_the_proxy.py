"""Ways past a pod's proxy, or in its place. Each is denied, or is nothing that policy is about."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sandbox.cluster import kubectl, kubectl_command
from sandbox.mesh_probes import ask
from sandbox.node import SANDBOX_ROOT, Node
from tests.system.cluster_rig import container_cgroup
from tests.system.istio.fort import (
    MANIFESTS,
    at,
    dropped,
    enforced,
    guest,
    impostor,
    kill_proxy,
)
from tests.system.istio.mesh import MESH, agent, node_of, pids, sidecars

pytestmark = [
    pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.usefixtures("fort"),
]  # fmt: skip


@pytest.fixture(scope="module")
def fort(mesh: None) -> Iterator[None]:
    kubectl(MESH, "apply", "-f", str(MANIFESTS))
    try:
        pods = [f"pod/{name}" for name in ("fort", "guest", "forger", "on-host")]
        kubectl(MESH, "wait", "--for=condition=Ready", *pods, "--timeout=90s")
        kubectl(MESH, "wait", "--for=condition=Enforced", "cnp/fort", "--timeout=30s")
        enforced()
        yield
    finally:
        kubectl(MESH, "delete", "-f", str(MANIFESTS))


def in_fort(*command: str) -> str:
    return kubectl(MESH, "exec", "fort", "-c", "app", "--", *command)


def test_a_port_that_is_not_intercepted_is_judged_by_the_node() -> None:
    """traffic.sidecar.istio.io/excludeInboundPorts."""
    for family in (4, 6):
        assert guest(f"{at(family, 9000)}/open") == "200"
        assert guest(f"{at(family, 9000)}/closed") == "403"


def test_a_family_that_is_not_intercepted_is_closed() -> None:
    """Istio leaves IPv6 alone, unless told otherwise, where a pod has an IPv4 address."""
    assert guest(f"{at(6)}/open") == "none"
    assert "not sidecar" in dropped()
    assert guest(f"{at(4)}/open") == "200"


def test_without_the_pods_packet_rules_nothing_comes_in() -> None:
    """A container with CAP_NET_ADMIN can take them away."""
    rules = in_fort("iptables-save", "-t", "nat")
    in_fort("iptables", "-t", "nat", "-F", "PREROUTING")
    try:
        assert guest(f"{at(4)}/open") == "none"
        assert guest(f"{at(4)}/closed") == "none"
        assert "not sidecar" in dropped()
    finally:
        restore = kubectl_command(MESH, "exec", "-i", "fort", "-c", "app", "--", "iptables-restore")
        subprocess.run(restore, input=rules, text=True, check=True)
    enforced()


def test_who_listens_beside_the_proxy_gets_nothing() -> None:
    """Its user in another container may share its port (SO_REUSEPORT): the kernel then gives it
    a part of what comes in."""
    with impostor("--user=1337") as taken:
        taken()
        seen = {guest(f"{at(4)}/closed") for _ in range(20)}
    assert "none" in seen, "it was never asked"
    assert seen <= {"none", "403"}
    assert "not sidecar" in dropped()
    enforced()


def test_who_listens_in_a_dead_proxys_place_gets_nothing() -> None:
    with impostor() as taken:
        kill_proxy()
        taken()
        for _ in range(5):
            assert guest(f"{at(4)}/open") == "none"
    kill_proxy()
    enforced()


def test_the_proxys_own_ports_are_no_door() -> None:
    for port in (15000, 15001, 15006):
        assert guest(f"{at(4, port)}/open") == "none"
        assert guest(f"{at(6, port)}/open") == "none"
    for port in (15001, 15006):
        assert ask(MESH, "fort", ("--timeout=1s", f"http://127.0.0.1:{port}/open")) == "none"


def test_what_a_pod_asks_itself_is_its_own_affair() -> None:
    """It never leaves the pod: containers of one are not kept apart by any policy."""
    for url in (at(4), at(6), "http://127.0.0.6:8080", "http://localhost:8080"):
        assert ask(MESH, "fort", (f"{url}/closed",)) == "200"


def test_who_is_on_the_nodes_network_is_the_host() -> None:
    assert ask(MESH, "on-host", ("--timeout=1s", f"{at(4)}/hosts")) == "200"
    assert ask(MESH, "on-host", ("--timeout=1s", f"{at(4)}/open")) == "403"
    assert ask(MESH, "on-host", ("--timeout=1s", f"{at(6)}/hosts")) == "none"


def test_what_is_on_a_nodes_network_is_asked_as_egress_rules_say() -> None:
    """No policy selects such a pod, which has no interface of its own."""
    url = at(4, pod="on-host")
    assert ask(MESH, "fort", (f"{url}/open",)) == "200"
    assert ask(MESH, "fort", (f"{url}/closed",)) == "403"


def test_an_address_of_another_pod_is_nobodys() -> None:
    address = at(4, pod="guest").rpartition(":")[0].removeprefix("http://")
    forger = ("exec", "forger", "-c", "app", "--")
    kubectl(MESH, *forger, "ip", "addr", "add", f"{address}/32", "dev", "lo")
    asks = ("curl", "-sm1", "--interface", address, f"{at(4)}/open")
    assert subprocess.run(kubectl_command(MESH, *forger, *asks), check=False).returncode == 28
    said = agent("forger", "observe", "--last", "100", "--verdict", "denied", "-o", "json")
    assert "invalid source" in {json.loads(line)["reason"] for line in said.splitlines()}


def test_another_container_gets_no_lease() -> None:
    """Even if it finds the proxy's socket, in whatever way."""
    node = Node(node_of("fort"))
    (pid,) = pids(node.name, "default_fort", "beside")
    (place,) = (SANDBOX_ROOT / node.name / "pods/default_fort/volumes").glob("*/lease.sock")
    group = container_cgroup(node, "default_fort", "beside")
    join = f'echo $$ > {group}/cgroup.procs && exec nsenter -t {pid} --net -- "$@"'
    asked = subprocess.run(
        ["sh", "-c", join, "sh", sys.executable, "-c", _ASK_LEASE], cwd=place.parent,
        check=True, capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert asked.stdout.strip() == "0"
    assert group.name in str(sidecars()["default/fort"]["refused"])
    enforced()


_ASK_LEASE = """
import socket
with socket.socket(socket.AF_UNIX) as agent:
    agent.connect("lease.sock")
    print(len(socket.recv_fds(agent, 1, 1)[1]))
"""
