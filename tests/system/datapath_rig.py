"""Two pods, a remote host and a datapath on the real kernel: for the tests of the datapath."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Set as AbstractSet
from ipaddress import ip_network
from pathlib import Path

from datapath import routing
from datapath.codec import Endpoint
from datapath.consts import DropReason, Verdict
from datapath.facade import Datapath, DatapathConfig
from policy_engine.compile import entries_of
from policy_engine.model import (
    DirectionPolicy,
    EndpointPolicy,
    HttpRule,
    Parser,
    PortRule,
    Protocol,
)
from tests.system.netns import Node, Pod, inside
from tests.system.stand_in import StandIn

OPEN = DirectionPolicy()
CLOSED = DirectionPolicy(enforced=True)
FAMILIES = [4, 6]
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
A, B = 300, 301


def allow(
    *peers: int, port: int = 8080, parser: Parser | None = None, audit: bool = False
) -> DirectionPolicy:
    rule = PortRule("t", frozenset(peers), Protocol.TCP, port, parser=parser, http=(HttpRule(),))
    return DirectionPolicy(True, audit, (rule,))


def http(*peers: int) -> DirectionPolicy:
    return allow(*peers, parser=Parser.HTTP)


class Rig:
    """Pods a (endpoint 1, identity A) and b (endpoint 2, identity B, echo servers), a remote."""

    def __init__(self, bpf_dir: Path, *, bridged: bool = False) -> None:
        self.node = Node(bridged=bridged)
        self.bpf_dir = bpf_dir
        self.a, self.b = self.node.add_pod(), self.node.add_pod()
        self.datapath = self.start()
        for number, identity, pod in ((1, A, self.a), (2, B, self.b)):
            with inside(self.node.name):
                bridged = routing.is_bridged(pod.ifindex)
                self.datapath.attach_endpoint(
                    Endpoint(number, identity, pod.ifindex, pod.ipv4, pod.ipv6, bridged)
                )
            for address in (pod.ipv4, pod.ipv6):
                self.datapath.upsert_ipcache(ip_network(address), identity, number)
            self.set(number)
        for own in ("10.9.0.1", "fd00:9::1", "192.0.2.1", "2001:db8::1"):
            self.datapath.upsert_ipcache(ip_network(own), 1)
        self._servers: list[socket.socket] = []
        self.proxy: StandIn | None = None

    def start(self) -> Datapath:
        with inside(self.node.name):
            return Datapath(DatapathConfig(self.bpf_dir, ("up0",)))

    def set(
        self, endpoint: int, ingress: DirectionPolicy = OPEN, egress: DirectionPolicy = OPEN
    ) -> int:
        identity = A if endpoint == 1 else B
        entries = entries_of(ingress, egress)
        return self.datapath.sync_policy(
            endpoint, EndpointPolicy(endpoint, identity, ingress, egress, entries)
        )

    def serve(self, netns: str, port: int = 8080, kind: int = socket.SOCK_STREAM) -> None:
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            with inside(netns):
                server = socket.socket(family, kind)
            if family == socket.AF_INET6:
                server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind((host, port))
            self._servers.append(server)
            target = self._echo_datagrams if kind == socket.SOCK_DGRAM else self._accept
            if kind == socket.SOCK_STREAM:
                server.listen(64)
            threading.Thread(target=target, args=(server,), daemon=True).start()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                client, peer = server.accept()
            except OSError:
                return
            threading.Thread(target=self._echo, args=(client, peer[0]), daemon=True).start()

    def _echo(self, client: socket.socket, peer: str) -> None:
        with contextlib.suppress(OSError), client:
            while client.recv(4096):
                client.sendall(peer.encode())

    def _echo_datagrams(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while (received := server.recvfrom(8192))[1]:
                server.sendto(b"pong", received[1])

    def close(self) -> None:
        for server in self._servers:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        if self.proxy:
            self.proxy.close()
        with inside(self.node.name):
            self.datapath.destroy()
        self.node.close()

    def reasons(self) -> AbstractSet[DropReason]:
        return {e.reason for e in self.datapath.read_events() if e.verdict is Verdict.DROPPED}


def connect(netns: str, address: str, port: int = 8080, timeout: float = 0.5) -> socket.socket:
    with inside(netns):
        made = socket.socket(_FAMILY[6 if ":" in address else 4])
    made.settimeout(timeout)
    made.connect((address, port))
    return made


def ask(connection: socket.socket) -> str:
    connection.sendall(b"x")
    return connection.recv(100).decode()


def reach(netns: str, to: Pod | str, family: int = 4, port: int = 8080) -> str:
    """What the server saw as the peer, with ``P`` before it by way of the proxy; or the failure."""
    address = to if isinstance(to, str) else to.address(family)
    try:
        with connect(netns, address, port) as connection:
            return ask(connection)
    except TimeoutError:
        return "dropped"
    except ConnectionError:
        return "reset"


def asked(rig: Rig, family: int, payload: bytes) -> bool:
    """Whether b answers a datagram of a's."""
    with inside(rig.a.netns):
        client = socket.socket(_FAMILY[family], socket.SOCK_DGRAM)
    with client:
        client.settimeout(0.3)
        client.sendto(payload, (rig.b.address(family), 5353))
        try:
            return client.recv(10) == b"pong"
        except TimeoutError:
            return False
