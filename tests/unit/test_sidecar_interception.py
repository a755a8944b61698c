"""Which ports a pod's proxy judges, and who may ask for its lease."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from datapath.consts import Enforcer
from node_agent import peer_process
from node_agent.cluster import watched
from node_agent.endpoints import EndpointRecord
from node_agent.interception import ports_of
from node_agent.peer_process import Process
from node_agent.proof.prove import Proof, nothing
from policy_engine.model import Direction

IN, OUT = Direction.INGRESS, Direction.EGRESS
NODE, SIDECAR, UNPROVEN = Enforcer.NODE, Enforcer.SIDECAR, Enforcer.UNPROVEN
OWN = {(IN, port): NODE for port in (15008, 15020, 15021, 15090)}
T = "traffic.sidecar.istio.io/"
UID = "0b8a5c6e-1111-2222-3333-444455556666"
ID, OTHER = "3f2a" * 16, "9c1d" * 16
SLICE = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID}.slice".replace(
    UID, UID.replace("-", "_")
)
RECORD = EndpointRecord(1, "c", "default", "orders", "lxc1", 7, "02:00:00:00:00:01",
                        ipv4="10.0.0.1", pod_uid=UID)  # fmt: skip


@pytest.mark.parametrize(
    ("annotations", "wanted"),
    [
        ({}, {(IN, 0): SIDECAR, (OUT, 0): SIDECAR}),
        (
            {f"{T}excludeInboundPorts": "8080, 9090"},
            {(IN, 0): SIDECAR, (OUT, 0): SIDECAR, (IN, 8080): NODE, (IN, 9090): NODE},
        ),
        (
            {f"{T}includeInboundPorts": "80"},
            {(IN, 0): NODE, (OUT, 0): SIDECAR, (IN, 80): SIDECAR},
        ),
        ({f"{T}includeInboundPorts": ""}, {(IN, 0): NODE, (OUT, 0): SIDECAR}),
        (
            {f"{T}includeInboundPorts": "*", f"{T}excludeOutboundPorts": "443"},
            {(IN, 0): SIDECAR, (OUT, 0): SIDECAR, (OUT, 443): NODE},
        ),
        ({f"{T}includeOutboundIPRanges": "10.0.0.0/8"}, {(IN, 0): SIDECAR, (OUT, 0): SIDECAR}),
        (
            {
                f"{T}includeOutboundIPRanges": "",
                f"{T}includeOutboundPorts": "80, 81",
                f"{T}excludeOutboundPorts": "81",
            },
            {(IN, 0): SIDECAR, (OUT, 0): NODE, (OUT, 80): SIDECAR, (OUT, 81): NODE},
        ),
        ({f"{T}excludeInboundPorts": "http,70000,0"}, {(IN, 0): SIDECAR, (OUT, 0): SIDECAR}),
    ],
)
def test_ports_by_annotation(
    annotations: dict[str, str], wanted: dict[tuple[Direction, int], Enforcer]
) -> None:
    pod = {"metadata": {"namespace": "n", "name": "p", "annotations": annotations}}
    with_cni = pod | {"spec": {"initContainers": [{"name": "istio-validation"}]}}
    assert ports_of(with_cni, Proof({})) == wanted | OWN


@pytest.mark.parametrize("mode", ["REDIRECT", "TPROXY"])
def test_ports_by_what_istio_init_is_told(mode: str) -> None:
    """The mesh's settings are in its arguments alone."""
    args = ["istio-iptables", "-m", mode, "-b", "*", "-d", "15090,15021,15020,9000", "-o", "443"]
    pod = {"spec": {"initContainers": [{"name": "istio-init", "args": args}]}}
    wanted = {(IN, 0): SIDECAR, (IN, 9000): NODE, (OUT, 0): SIDECAR, (OUT, 443): NODE}
    assert ports_of(pod, Proof({})) == wanted | OWN


def test_what_nobody_intercepts_is_the_nodes() -> None:
    pod = {"spec": {"initContainers": [{"name": "istio-proxy"}, {"name": "mine"}]}}
    assert ports_of(pod, Proof({})) == {(IN, 0): NODE, (OUT, 0): NODE}


def test_what_a_gateway_sends_is_its_own() -> None:
    trim = next(each.trim for each in watched("n") if each.kind == "Pod")
    for role, proof, egress in (
        ("router", Proof({}), SIDECAR),
        ("router", nothing("not yet"), UNPROVEN),
        ("sidecar", Proof({}), NODE),
    ):
        proxy = {"name": "istio-proxy", "args": ["proxy", role, "--domain", "x"]}
        pod = {"metadata": {}, "spec": {"containers": [{"name": "app"}, proxy]}}
        assert ports_of(trim(pod), proof) == {(IN, 0): NODE, (OUT, 0): egress}


def test_what_is_not_proven_is_so_on_every_port_that_is_intercepted() -> None:
    assert ports_of({}, nothing("not yet")) == {(IN, 0): UNPROVEN, (OUT, 0): UNPROVEN} | OWN


def test_a_port_that_is_not_proven_is_closed_unless_it_is_the_nodes() -> None:
    proof = Proof({(IN, 8080): "no filter", (IN, 9090): "no filter"})
    args = ["istio-iptables", "-d", "9090"]
    pod = {"spec": {"initContainers": [{"name": "istio-init", "args": args}]}}
    wanted = {(IN, 0): SIDECAR, (OUT, 0): SIDECAR, (IN, 8080): UNPROVEN, (IN, 9090): NODE}
    assert ports_of(pod, proof) == wanted | OWN


@pytest.mark.parametrize(
    ("cgroup", "told", "allowed"),
    [
        (f"/sidegate/n-1/kubepods/pod{UID}/{ID}", f"sandbox://{ID}", True),
        (f"/kubepods/burstable/pod{UID}/{ID}", f"containerd://{ID}", True),
        (f"/kubepods/burstable/pod{UID}/crio-{ID}", f"cri-o://{ID}", True),
        (f"{SLICE}/cri-containerd-{ID}.scope", f"containerd://{ID}", True),
        (f"{SLICE}/crio-{ID}.scope/container", f"cri-o://{ID}", True),
        (f"{SLICE}/cri-containerd-{OTHER}.scope", f"containerd://{ID}", False),
        (f"{SLICE}/cri-containerd-{OTHER}.scope/pod{UID}/{ID}", f"containerd://{ID}", False),
        (f"/kubepods/pod0b8a5c6e-9999/{OTHER}/pod{UID}/{ID}", f"containerd://{ID}", False),
        (f"/kubepods/burstable/pod0b8a5c6e-9999/{ID}", f"containerd://{ID}", False),
        (SLICE, f"containerd://{ID}", False),
        (f"/kubepods/burstable/pod{UID}/{ID}", "", False),
        (f"/kubepods/burstable/pod{UID}/", "", False),
        ("/", f"containerd://{ID}", False),
    ],
)
@pytest.mark.parametrize("kind", ["initContainerStatuses", "containerStatuses"])
def test_a_lease_is_for_the_proxys_container_of_the_pod(
    cgroup: str, told: str, allowed: bool, kind: str
) -> None:
    statuses = [
        {"name": "app", "containerID": f"containerd://{OTHER}"},
        {"name": "istio-proxy", "containerID": told},
    ]
    pod = {"metadata": {"uid": UID}, "status": {kind: statuses}}
    process = Process(4711, cgroup, 1, 1)
    if allowed:
        peer_process.check(process, RECORD, pod)
        return
    with pytest.raises(PermissionError, match=f"4711 is in cgroup {cgroup}"):
        peer_process.check(process, RECORD, pod)


@pytest.mark.parametrize(
    "pod", [{}, {"metadata": {"uid": UID}}, {"metadata": {"uid": "of the pod before"}}]
)
def test_who_is_not_told_of_yet_gets_no_lease(pod: dict[str, Any]) -> None:
    with_status = {"status": {"containerStatuses": [{"name": "istio-proxy"}]}} | pod
    process = Process(4711, f"/kubepods/pod{UID}/{ID}", 1, 1)
    with pytest.raises(PermissionError, match="the kubelet has told of none yet"):
        peer_process.check(process, RECORD, with_status)


def test_a_process_is_known_by_its_socket() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        found = peer_process.of(ours)
    assert found.pid > 0
    assert found.cgroup_id > 0
    assert found.netns > 0
