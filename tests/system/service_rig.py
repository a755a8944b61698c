"""A client pod, two backends and the node's cgroup on the real kernel: for tests of Services."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from datapath.service_model import Backend, Frontend, ServicePort
from datapath.services import Services
from policy_engine.model import Protocol
from sandbox.node import Node as SandboxNode
from tests.system.netns import Node, Pod, inside

CLUSTER_IPS = {4: "10.96.0.10", 6: "fd00:96::a"}
PORT, TARGET_PORT = 80, 8080
TIMEOUT_S = 2.0
_TYPES = {Protocol.TCP: socket.SOCK_STREAM, Protocol.UDP: socket.SOCK_DGRAM}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_numbers = itertools.count(1)


def frontend(family: int = 4, protocol: Protocol = Protocol.TCP) -> Frontend:
    return Frontend(ip_address(CLUSTER_IPS[family]), PORT, protocol)


def _cgroup(name: str) -> Path:
    cgroup = SandboxNode(name).cgroup
    assert cgroup, "these tests need cgroup v2"
    return cgroup


@contextlib.contextmanager
def joined(cgroup: Path) -> Iterator[None]:
    """New sockets of this process belong to ``cgroup``: a socket keeps that of its maker."""
    root = _cgroup("any").parents[1]
    own = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].splitlines()[0]
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        (root / own / "cgroup.procs").write_text(str(os.getpid()))


class ServiceRig:
    """Pod a is the client, b and c serve; each answers with the letter of its own."""

    def __init__(self, bpf_dir: Path) -> None:
        self.node = Node()
        self.bpf_dir = bpf_dir
        self.a, self.b, self.c = (self.node.add_pod() for _ in range(3))
        self.cgroup = _cgroup(f"svc-test-{os.getpid()}-{next(_numbers)}")
        self.pod_cgroup = self.cgroup / "pods" / "a"
        self.pod_cgroup.mkdir(parents=True)
        self._servers: list[socket.socket] = []
        self.services = Services(bpf_dir, self.cgroup)
        self.pause = self._start_pause()

    def service(
        self, *pods: Pod, family: int = 4, protocol: Protocol = Protocol.TCP,
        draining: tuple[Pod, ...] = (), affinity_seconds: int = 0,
    ) -> dict[Frontend, ServicePort]:  # fmt: skip
        at = [
            tuple(Backend(ip_address(pod.address(family)), TARGET_PORT) for pod in each)
            for each in (pods, draining)
        ]
        return {frontend(family, protocol): ServicePort(at[0], at[1], affinity_seconds)}

    def everything(self) -> dict[Frontend, ServicePort]:
        return {
            key: value
            for family in _FAMILIES
            for protocol in _TYPES
            for key, value in self.service(self.b, self.c, family=family, protocol=protocol).items()
        }

    def client(
        self, family: int = 4, protocol: Protocol = Protocol.TCP, netns: str = "",
        cgroup: Path | None = None,
    ) -> socket.socket:  # fmt: skip
        with inside(netns or self.a.netns), joined(cgroup or self.pod_cgroup):
            return self.outsider(family, protocol)

    def clients(self, count: int) -> list[socket.socket]:
        """As :meth:`client`, many at once."""
        with inside(self.a.netns), joined(self.pod_cgroup):
            return [self.outsider() for _ in range(count)]

    @staticmethod
    def outsider(family: int = 4, protocol: Protocol = Protocol.TCP) -> socket.socket:
        made = socket.socket(_FAMILIES[family], _TYPES[protocol])
        made.settimeout(TIMEOUT_S)
        return made

    def connect(self, family: int = 4, protocol: Protocol = Protocol.TCP) -> socket.socket:
        made = self.client(family, protocol)
        made.connect((CLUSTER_IPS[family], PORT))
        return made

    def serve(self) -> None:
        for name, pod in (("b", self.b), ("c", self.c)):
            for family, protocol in itertools.product(_FAMILIES, _TYPES):
                with inside(pod.netns):
                    server = socket.socket(_FAMILIES[family], _TYPES[protocol])
                server.bind((pod.address(family), TARGET_PORT))
                self._servers.append(server)
                if protocol is Protocol.TCP:
                    server.listen(256)
                target = self._accept if protocol is Protocol.TCP else self._answer_datagrams
                threading.Thread(target=target, args=(server, name), daemon=True).start()

    def close(self) -> None:
        for server in self._servers:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            server.close()
        self.services.destroy()
        subprocess.run(["umount", str(self.bpf_dir)], check=True)
        self.pause.kill()
        self.pause.wait()
        for path in (self.pod_cgroup, self.pod_cgroup.parent, self.cgroup):
            path.rmdir()
        self.node.close()

    def _start_pause(self) -> subprocess.Popen[bytes]:
        """A process of pod a, by which its namespace is found."""
        join = f'echo $$ > "{self.pod_cgroup}/cgroup.procs"; exec sleep 300'
        with inside(self.a.netns):
            return subprocess.Popen(["/bin/sh", "-c", join])

    @staticmethod
    def _accept(server: socket.socket, name: str) -> None:
        def echo(client: socket.socket) -> None:
            with contextlib.suppress(OSError), client:
                while client.recv(4096):
                    client.sendall(name.encode())

        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=echo, args=(server.accept()[0],), daemon=True).start()

    @staticmethod
    def _answer_datagrams(server: socket.socket, name: str) -> None:
        with contextlib.suppress(OSError):
            while (received := server.recvfrom(8192))[1]:
                server.sendto(name.encode(), received[1])


def ask(client: socket.socket) -> str:
    """The name of the server that answers on a connected socket."""
    client.send(b"x")
    return client.recv(10).decode()


def ask_once(rig: ServiceRig, family: int = 4, protocol: Protocol = Protocol.TCP) -> str:
    with rig.connect(family, protocol) as client:
        return ask(client)


def exchange(client: socket.socket, family: int = 4) -> tuple[str, tuple[str, int]]:
    """Who answers an unconnected datagram, and from which address the socket says it does."""
    client.sendto(b"x", (CLUSTER_IPS[family], PORT))
    data, source = client.recvfrom(10)
    return data.decode(), source[:2]
