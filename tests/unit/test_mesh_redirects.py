"""Which clients the kernel is told to redirect, and when (node_agent/mesh.py)."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from datapath.libbpf import BpfError
from datapath.mesh_map import ANY_SPACE, MeshMap, ViewKey, ViewValue
from datapath.service_model import Frontend
from gateway_translator.ir import HttpHandler, MeshFrontend, MeshView, ObjectRef
from node_agent import mesh
from node_agent.endpoints import EndpointRecord
from node_agent.mesh import Mesh
from policy_engine.model import Protocol
from xds_server.gateway.ports import PORTS, ProxyPorts
from xds_server.resources import CLUSTER_TYPE, LISTENER_TYPE

PRODUCED = "gateway/mesh/shop/orders/80"
CONSUMED = f"{PRODUCED}/for/client"
AT = Frontend(ip_address("10.96.0.1"), 80, Protocol.TCP)
VIEW = MeshView(HttpHandler("table"))
BOTH = MeshFrontend(
    "shop/orders/80", ObjectRef("Service", "shop", "orders"), ("10.96.0.1",), 80, VIEW,
    {"client": VIEW},
)  # fmt: skip
CONSUMERS = replace(BOTH, producer=None)
FIRST, SECOND = PORTS[:2]


class Kept(dict[bytes, bytes]):
    """A map, as :class:`datapath.libbpf.Map` is used."""

    def set(self, key: bytes, value: bytes) -> None:
        self[key] = value

    def delete(self, key: bytes) -> bool:
        return self.pop(key, None) is not None


class Node:
    """Envoy has taken the listeners in ``accepted``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.maps = (Kept(), Kept(), Kept())
        self.accepted: set[str] = set()
        self.attached: list[int] = []
        self.restart()

    def restart(self) -> None:
        self.mesh = Mesh(
            self.folder / "mesh.json",
            MeshMap(*self.maps),  # type: ignore[arg-type]
            lambda _, name: name in self.accepted,
            lambda record: self.attached.append(record.id),
        )

    def views(self) -> dict[ViewKey, ViewValue]:
        return {ViewKey.unpack(k): ViewValue.unpack(v) for k, v in self.maps[0].items()}

    def space(self, endpoint_id: int) -> int:
        return int.from_bytes(self.maps[1].get(endpoint_id.to_bytes(4, "little"), b""), "little")


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def pod(endpoint_id: int, namespace: str) -> EndpointRecord:
    return EndpointRecord(endpoint_id, f"c{endpoint_id}", namespace, "p", "veth", 9, "02::")


def test_the_host_is_no_client(node: Node) -> None:
    (cookie,) = node.maps[2].values()
    assert int.from_bytes(cookie, "little")


def test_nobody_is_redirected_before_envoy_listens(node: Node) -> None:
    node.mesh.take({BOTH.name: BOTH})
    node.mesh.step()
    assert node.views() == {}
    assert node.mesh.waits
    node.accepted.add(PRODUCED)
    node.mesh.step()
    assert node.views() == {ViewKey(AT): ViewValue(FIRST)}
    node.accepted.add(CONSUMED)
    node.mesh.step()
    assert node.views() == {ViewKey(AT): ViewValue(FIRST), ViewKey(AT, 1): ViewValue(SECOND)}
    assert not node.mesh.waits


def test_closed_is_better_than_past_the_routes(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "PATIENCE_SECONDS", 0)
    node.mesh.take({BOTH.name: BOTH})
    node.mesh.step()
    assert node.views().keys() == {ViewKey(AT), ViewKey(AT, 1)}


def test_what_goes_is_not_redirected_any_more_before_envoy_is_told(node: Node) -> None:
    node.accepted |= {PRODUCED, CONSUMED}
    node.mesh.take({BOTH.name: BOTH})
    node.mesh.step()
    node.mesh.take({BOTH.name: replace(BOTH, consumers={})})
    assert node.views().keys() == {ViewKey(AT)}
    node.mesh.take({BOTH.name: None})
    assert node.views() == {}


def test_an_address_that_another_service_has_got_stays(node: Node) -> None:
    heir = replace(BOTH, name="shop/heir/80", consumers={})
    node.accepted |= {PRODUCED, CONSUMED, "gateway/mesh/shop/heir/80"}
    node.mesh.take({BOTH.name: BOTH})
    node.mesh.step()
    node.mesh.take({heir.name: heir})
    node.mesh.step()
    node.mesh.take({BOTH.name: None})
    assert node.views().keys() == {ViewKey(AT)}
    assert node.views()[ViewKey(AT)] != ViewValue(FIRST)


def test_endpoints_have_the_space_of_their_namespace_before_it_has_views(node: Node) -> None:
    node.mesh.note_endpoint(1, pod(1, "client"))
    node.mesh.note_endpoint(2, pod(2, "shop"))
    assert (node.space(1), node.space(2)) == (ANY_SPACE, ANY_SPACE)
    node.mesh.take({BOTH.name: BOTH})
    node.mesh.note_endpoint(3, pod(3, "client"))
    assert [node.space(n) for n in (1, 2, 3)] == [1, ANY_SPACE, 1]
    node.mesh.note_endpoint(1, pod(1, "shop"))  # the number was another's before
    node.mesh.note_endpoint(3, None)
    assert [node.space(n) for n in (1, 3)] == [ANY_SPACE, ANY_SPACE]


def test_who_sees_no_routes_has_the_service_translated_by_packet(node: Node) -> None:
    node.mesh.note_endpoint(1, pod(1, "client"))
    node.mesh.take({BOTH.name: BOTH})
    assert node.attached == []
    node.mesh.take({BOTH.name: CONSUMERS})
    assert node.views()[ViewKey(AT)] == ViewValue(0, served=False)
    node.mesh.note_endpoint(2, pod(2, "shop"))
    assert node.attached == [1, 2]


def test_a_successor_leaves_what_is_right_and_takes_away_what_is_not(node: Node) -> None:
    node.accepted |= {PRODUCED, CONSUMED}
    node.mesh.take({BOTH.name: BOTH})
    node.mesh.step()
    before = node.views()
    node.accepted.clear()
    node.restart()
    node.mesh.take({BOTH.name: BOTH})
    node.mesh.step()
    assert node.views() == before
    assert not node.mesh.waits
    node.restart()
    node.mesh.step()
    assert node.views() == {}


def test_what_cannot_be_is_said_of_the_service(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = [node.mesh.ports.of(str(number)) for number in range(len(PORTS))]
    assert len(set(taken)) == len(PORTS)
    monkeypatch.setattr(mesh, "PATIENCE_SECONDS", 0)
    node.mesh.take({BOTH.name: BOTH})
    node.mesh.step()
    assert node.views()[ViewKey(AT)] == ViewValue(0)
    assert node.mesh.problems == {
        BOTH.service: "closed: no port is left for its listener; remove routes of Services"
    }
    node.mesh.take({BOTH.name: None})
    assert node.mesh.problems == {}


def test_a_map_that_is_full(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: bytes, __: bytes) -> None:
        raise BpfError(errno.ENOSPC, "map mesh_views: full")

    monkeypatch.setattr(node.maps[0], "set", full)
    node.accepted |= {PRODUCED, CONSUMED}
    node.mesh.take({BOTH.name: BOTH})
    node.mesh.step()
    assert "map mesh_views: full" in node.mesh.problems[BOTH.service]


def test_ports_are_given_once_and_not_again_at_once() -> None:
    ports = ProxyPorts()
    assert [ports.of(name) for name in ("a", "b", "a")] == [FIRST, SECOND, FIRST]
    ports.give_back("b")
    assert ports.of("c") == PORTS[2]
    assert ProxyPorts(ports.export()).of("a") == FIRST


def test_when_there_is_no_port_left_there_is_none() -> None:
    ports = ProxyPorts({str(port): port for port in PORTS})
    assert ports.of("one more") == 0
    ports.give_back(str(FIRST))
    assert ports.of("one more") == FIRST


def test_a_port_that_somebody_else_has_is_left_to_them(node: Node) -> None:
    node.accepted |= {PRODUCED, CONSUMED}
    node.mesh.take({BOTH.name: BOTH})
    words = "cannot bind '127.0.0.1:15100': Address already in use"
    assert (
        node.mesh.move({(LISTENER_TYPE, "gateway/other"): words, (CLUSTER_TYPE, PRODUCED): ""})
        == {}
    )
    assert node.mesh.move({(LISTENER_TYPE, PRODUCED): "something else"}) == {}
    assert node.mesh.move({(LISTENER_TYPE, PRODUCED): words}) == {BOTH.name: BOTH}
    node.mesh.step()
    assert node.views() == {ViewKey(AT): ViewValue(PORTS[2]), ViewKey(AT, 1): ViewValue(SECOND)}
