"""Services with routes on the real kernel: who is redirected at its veth, also on a bridge."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from datapath.consts import DropReason
from datapath.mesh_map import ViewKey, ViewValue
from datapath.service_model import Frontend
from policy_engine.model import Protocol
from tests.system.datapath_rig import CLOSED, FAMILIES, Rig, reach
from tests.system.stand_in import StandIn

pytestmark = [
    pytest.mark.system,
    pytest.mark.parametrize("rig", ["routed", "bridged"], indirect=True),
    pytest.mark.parametrize("family", FAMILIES),
]
PORT, SPACE = 15001, 7


@pytest.fixture
def at(rig: Rig, family: int) -> ViewKey:
    """Beyond a router: like the address of a Service it is no pod's."""
    rig.serve(rig.node.remote.netns)
    rig.proxy = StandIn(rig.node.name, PORT)
    address = ip_address(rig.node.remote.address(family))
    return ViewKey(Frontend(address, 8080, Protocol.TCP))


def seen(rig: Rig, family: int) -> list[str]:
    """Of the client by the server, asked by pods a and b; "P" before it by way of the proxy."""
    pods = (rig.a, rig.b)
    found = [reach(pod.netns, rig.node.remote, family) for pod in pods]
    return [said.replace(pod.address(family), "own") for pod, said in zip(pods, found, strict=True)]


def test_clients_are_redirected_while_there_is_a_view(rig: Rig, at: ViewKey, family: int) -> None:
    assert seen(rig, family) == ["own", "own"]
    rig.datapath.mesh.set_view(at, ViewValue(PORT))
    assert seen(rig, family) == ["Pown", "Pown"]
    assert reach(rig.a.netns, rig.b, family) == rig.a.address(family)
    rig.datapath.mesh.delete_view(at)
    assert seen(rig, family) == ["own", "own"]


def test_policy_is_asked_where_the_backend_is_known(rig: Rig, at: ViewKey, family: int) -> None:
    rig.set(1, egress=CLOSED)
    rig.datapath.mesh.set_view(at, ViewValue(PORT))
    assert seen(rig, family) == ["Pown", "Pown"]


def test_a_namespace_has_views_of_its_own(rig: Rig, at: ViewKey, family: int) -> None:
    rig.datapath.mesh.set_view(at, ViewValue(0, served=False))
    rig.datapath.mesh.set_view(at._replace(space=SPACE), ViewValue(PORT))
    rig.datapath.mesh.set_space(1, SPACE)
    assert seen(rig, family) == ["Pown", "own"]


@pytest.mark.parametrize("port", [0, PORT + 1])
def test_nothing_passes_without_a_listener(rig: Rig, at: ViewKey, family: int, port: int) -> None:
    rig.datapath.mesh.set_view(at, ViewValue(port))
    assert seen(rig, family) == ["dropped", "dropped"]
    assert rig.reasons() == {DropReason.PROXY_DOWN}


def test_a_pod_with_a_proxy_of_its_own_follows_that(rig: Rig, at: ViewKey, family: int) -> None:
    rig.datapath.mesh.set_view(at, ViewValue(PORT))
    rig.datapath.enforcers.set_cgroup(1, 1)
    assert seen(rig, family) == ["own", "Pown"]
