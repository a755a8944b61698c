"""Services by packet, on the real kernel: a pod whose sockets nobody translates."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from datapath.consts import DropReason
from datapath.packet_services import PacketServices
from datapath.service_model import Backend, Frontend, ServicePort, ServiceTable
from datapath.services import Services
from policy_engine.model import Protocol
from sandbox.node import Node as SandboxNode
from tests.system.datapath_rig import CLOSED, FAMILIES, A, Rig, allow, ask, connect, http
from tests.system.netns import inside
from tests.system.service_rig import CLUSTER_IPS, PORT, exchange, frontend
from tests.system.stand_in import StandIn

pytestmark = pytest.mark.system

TCP, UDP = Protocol.TCP, Protocol.UDP
TCP_PORT, UDP_PORTS = 8080, (5353, 5354)
NOBODY = {4: "192.0.0.8", 6: "64:ff9b:1::c000:8"}


@pytest.fixture
def services(rig: Rig, tmp_path: Path) -> Iterator[Services]:
    """Pod a is translated by packet; b serves TCP, and UDP at two ports."""
    cgroup = SandboxNode(f"svc-packet-{os.getpid()}").cgroup
    assert cgroup, "these tests need cgroup v2"
    cgroup.mkdir(parents=True)
    made = Services(rig.bpf_dir, cgroup)
    for port in UDP_PORTS:
        rig.serve(rig.b.netns, port, socket.SOCK_DGRAM)
    packet = PacketServices(rig.bpf_dir)
    with inside(rig.node.name):
        packet.attach(rig.a.ifindex)
    try:
        yield made
    finally:
        made.destroy()
        packet.close()
        cgroup.rmdir()


def table(rig: Rig, family: int, protocol: Protocol = TCP, *ports: int) -> ServiceTable:
    address = ip_address(rig.b.address(family))
    backends = tuple(Backend(address, port) for port in ports or (TCP_PORT,))
    return {frontend(family, protocol): ServicePort(backends)}


def datagrams(rig: Rig, family: int) -> socket.socket:
    with inside(rig.a.netns):
        made = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    made.settimeout(1)
    return made


def ask_service(rig: Rig, family: int) -> str:
    with connect(rig.a.netns, CLUSTER_IPS[family], PORT) as connection:
        assert connection.getpeername()[:2] == (CLUSTER_IPS[family], PORT)
        return ask(connection)


@pytest.mark.parametrize("family", FAMILIES)
def test_connections(rig: Rig, services: Services, family: int) -> None:
    services.replace(table(rig, family))
    assert ask_service(rig, family) == rig.a.address(family)


@pytest.mark.parametrize("family", FAMILIES)
def test_connections_are_spread_though_their_ports_follow_each_other(
    rig: Rig, services: Services, family: int
) -> None:
    kind, ports = socket.AF_INET if family == 4 else socket.AF_INET6, (8098, 8099)
    services.replace(table(rig, family, TCP, *ports))
    with inside(rig.b.netns):
        servers = [socket.create_server((rig.b.address(family), p), family=kind) for p in ports]
    clients = []
    for port in range(40_000, 40_032, 2):
        with inside(rig.a.netns):
            clients.append(socket.socket(kind))
        clients[-1].bind((rig.a.address(family), port))
        clients[-1].connect((CLUSTER_IPS[family], PORT))
    for server in servers:
        server.settimeout(1)
        for _ in range(4):  # of 16 at least
            server.accept()[0].close()
    for each in [*clients, *servers]:
        each.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_much_data_both_ways(rig: Rig, services: Services, family: int) -> None:
    """Segmentation offload and checksums survive the exchange of addresses."""
    services.replace(table(rig, family, TCP, 8099))
    payload = os.urandom(1 << 20)
    with inside(rig.b.netns):
        server = socket.create_server(
            (rig.b.address(family), 8099), family=socket.AF_INET if family == 4 else socket.AF_INET6
        )
    with server, connect(rig.a.netns, CLUSTER_IPS[family], PORT) as client:
        client.settimeout(5)
        peer = server.accept()[0]
        with peer:
            for sender, receiver in ((client, peer), (peer, client)):
                received = b""
                for begin in range(0, len(payload), 65536):
                    sender.sendall(payload[begin : begin + 65536])
                    while len(received) < begin + 65536:
                        received += receiver.recv(65536)
                assert received == payload


@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams(rig: Rig, services: Services, family: int) -> None:
    """They come from the Service, stay with a backend, and get another when it goes."""
    services.replace(table(rig, family, UDP, *UDP_PORTS))
    with datagrams(rig, family) as client:
        for _ in range(3):
            assert exchange(client, family) == ("pong", (CLUSTER_IPS[family], PORT))
        for port in UDP_PORTS:
            services.sync(table(rig, family, UDP, port))
            assert exchange(client, family) == ("pong", (CLUSTER_IPS[family], PORT))


@pytest.mark.parametrize("family", FAMILIES)
def test_policy_sees_the_backend(rig: Rig, services: Services, family: int) -> None:
    services.replace(table(rig, family))
    for policy, reached in ((CLOSED, False), (allow(A), True), (allow(A, port=PORT), False)):
        rig.set(2, ingress=policy)
        if reached:
            assert ask_service(rig, family)
        else:
            with pytest.raises(TimeoutError):
                connect(rig.a.netns, CLUSTER_IPS[family], PORT)


@pytest.mark.parametrize("family", FAMILIES)
def test_by_way_of_the_proxy(rig: Rig, services: Services, family: int) -> None:
    services.replace(table(rig, family))
    rig.proxy = StandIn(rig.node.name)
    rig.set(2, ingress=http(A))
    assert ask_service(rig, family) == f"P{rig.a.address(family)}"


def test_a_connection_outlives_its_backend_and_its_service(rig: Rig, services: Services) -> None:
    services.replace(table(rig, 4))
    with connect(rig.a.netns, CLUSTER_IPS[4], PORT) as connection:
        for change in ({frontend(): ServicePort()}, {frontend(): None}):
            services.sync(change)
            assert ask(connection) == str(rig.a.ipv4)


@pytest.mark.parametrize("family", FAMILIES)
def test_errors_about_a_datagram(rig: Rig, services: Services, family: int) -> None:
    """The kernel of the pod knows its socket by the Service's address."""
    services.replace(table(rig, family, UDP, 9))
    with datagrams(rig, family) as client:
        client.connect((CLUSTER_IPS[family], PORT))
        client.send(b"x")
        with pytest.raises(ConnectionRefusedError):
            client.recv(10)


def test_without_backends(rig: Rig, services: Services) -> None:
    services.replace({frontend(): ServicePort()})
    with pytest.raises(TimeoutError):
        connect(rig.a.netns, CLUSTER_IPS[4], PORT)
    assert rig.reasons() == {DropReason.NO_BACKEND}


def test_one_source_port_to_two_services_with_one_backend(rig: Rig, services: Services) -> None:
    """Their answers could not be told apart: the second one gets none."""
    other = Frontend(ip_address("10.96.0.11"), PORT, UDP)
    both = table(rig, 4, UDP, UDP_PORTS[0])
    services.replace(both | {other: both[frontend(4, UDP)]})
    with datagrams(rig, 4) as client:
        assert exchange(client)[0] == "pong"
        client.sendto(b"x", (str(other.address), PORT))
        assert exchange(client) == ("pong", (CLUSTER_IPS[4], PORT))
    assert rig.reasons() == {DropReason.NO_BACKEND}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pod_may_be_its_own_backend(rig: Rig, services: Services, family: int) -> None:
    """Whatever its policy; what it answers itself comes from the Service."""
    rig.serve(rig.a.netns, TCP_PORT)
    rig.serve(rig.a.netns, UDP_PORTS[0], socket.SOCK_DGRAM)
    rig.set(1, ingress=CLOSED, egress=CLOSED)
    own = ip_address(rig.a.address(family))
    services.replace(
        {
            frontend(family): ServicePort((Backend(own, TCP_PORT),)),
            frontend(family, UDP): ServicePort((Backend(own, UDP_PORTS[0]),)),
        }
    )
    assert ask_service(rig, family) == NOBODY[family]
    with datagrams(rig, family) as client:
        for _ in range(2):
            assert exchange(client, family) == ("pong", (CLUSTER_IPS[family], PORT))


def test_other_pods_and_addresses_are_not_touched(rig: Rig, services: Services) -> None:
    services.replace(table(rig, 4))
    with connect(rig.a.netns, str(rig.b.ipv4)) as direct:
        assert direct.getpeername() == (str(rig.b.ipv4), TCP_PORT)
        assert ask(direct) == str(rig.a.ipv4)
    with pytest.raises(OSError):  # noqa: PT011  it depends on the route which one
        connect(rig.b.netns, CLUSTER_IPS[4], PORT)
    PacketServices(rig.bpf_dir).detach(rig.a.ifindex)
    with pytest.raises(OSError):  # noqa: PT011
        connect(rig.a.netns, CLUSTER_IPS[4], PORT)
