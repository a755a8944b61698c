"""Nodes and pods as network namespaces, with sockets opened inside them from the test process."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_numbers = itertools.count(1)


def ip(*arguments: str, netns: str | None = None) -> None:
    where = ["-n", netns] if netns else []
    subprocess.run(["ip", *where, *arguments], check=True, capture_output=True, text=True)


@contextlib.contextmanager
def inside(netns: str) -> Iterator[None]:
    """The calling thread's new sockets belong to ``netns``."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    other = os.open(f"/run/netns/{netns}", os.O_RDONLY)
    try:
        if _libc.setns(other, _CLONE_NEWNET) < 0:
            raise OSError(ctypes.get_errno(), f"setns {netns}")
        yield
    finally:
        _libc.setns(own, _CLONE_NEWNET)
        os.close(own)
        os.close(other)


@dataclass(frozen=True, slots=True)
class Pod:
    netns: str
    ifindex: int
    ipv4: IPv4Address
    ipv6: IPv6Address

    def address(self, family: int) -> str:
        return str(self.ipv4 if family == 4 else self.ipv6)


class Node:
    """A node namespace with pods behind veths and a remote host beyond a router link.

    ``bridged``: the pods are at ports of a bridge, as the reference CNI plugin makes them.
    """

    def __init__(self, *, bridged: bool = False) -> None:
        self._bridge = "br0" if bridged else ""
        self.name = f"sgt{os.getpid()}-{next(_numbers)}"
        self.pods: list[Pod] = []
        self._names = [self.name]
        ip("netns", "add", self.name)
        ip("link", "set", "lo", "up", netns=self.name)
        for key in ("net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"):
            self.sysctl(key, "1")
        if bridged:
            ip("link", "add", self._bridge, "address", "02:00:00:00:02:0a", "type", "bridge",
               netns=self.name)  # fmt: skip
            self.sysctl(f"net/ipv6/conf/{self._bridge}/accept_dad", "0")  # it takes a second
            ip("addr", "add", "10.9.0.1/24", "dev", self._bridge, netns=self.name)
            ip("addr", "add", "fd00:9::1/64", "dev", self._bridge, "nodad", netns=self.name)
            ip("link", "set", self._bridge, "up", netns=self.name)
        self.remote = self._add_remote()

    def sysctl(self, key: str, value: str) -> None:
        with inside(self.name), open(f"/proc/sys/{key}", "w") as file:
            file.write(value)

    def add_pod(self) -> Pod:
        number = len(self.pods) + 10
        netns, host = f"{self.name}-p{number}", f"v{number}"
        v4, v6 = IPv4Address(f"10.9.0.{number}"), IPv6Address(f"fd00:9::{number}")
        if self._bridge:
            self._port(netns, host, str(v4), str(v6))
        else:
            self._link(netns, host, number, str(v4), str(v6), "10.9.0.1", "fd00:9::1")
        with inside(self.name):
            index = socket.if_nametoindex(host)
        pod = Pod(netns, index, v4, v6)
        self.pods.append(pod)
        return pod

    def close(self) -> None:
        for name in reversed(self._names):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)

    def _add_remote(self) -> Pod:
        netns = f"{self.name}-r"
        self._link(netns, "up0", 200, "192.0.2.9", "2001:db8::9", "192.0.2.1", "2001:db8::1")
        with inside(self.name):
            index = socket.if_nametoindex("up0")
        return Pod(netns, index, IPv4Address("192.0.2.9"), IPv6Address("2001:db8::9"))

    def _port(self, netns: str, host: str, v4: str, v6: str) -> None:
        ip("netns", "add", netns)
        self._names.append(netns)
        ip("link", "add", host, "type", "veth", "peer", "name", "eth0", "netns", netns,
           netns=self.name)  # fmt: skip
        ip("link", "set", host, "master", self._bridge, "up", netns=self.name)
        for name in ("lo", "eth0"):
            ip("link", "set", name, "up", netns=netns)
        ip("addr", "add", f"{v4}/24", "dev", "eth0", netns=netns)
        ip("addr", "add", f"{v6}/64", "dev", "eth0", "nodad", netns=netns)
        for gateway in ("10.9.0.1", "fd00:9::1"):
            ip("route", "add", "default", "via", gateway, netns=netns)

    def _link(
        self, netns: str, host: str, number: int, v4: str, v6: str, gw4: str, gw6: str
    ) -> None:
        ip("netns", "add", netns)
        self._names.append(netns)
        mac, host_mac = f"02:00:00:00:01:{number:02x}", f"02:00:00:00:02:{number:02x}"
        ip("link", "add", host, "address", host_mac, "type", "veth", "peer", "name", "eth0",
           "address", mac, "netns", netns, netns=self.name)  # fmt: skip
        ip("link", "set", "lo", "up", netns=netns)
        for where, name in ((self.name, host), (netns, "eth0")):
            ip("link", "set", name, "up", netns=where)
        ip("addr", "replace", f"{gw4}/32", "dev", "lo", netns=self.name)
        ip("addr", "replace", f"{gw6}/128", "dev", "lo", netns=self.name)
        for bits, own, gateway in ((32, v4, gw4), (128, v6, gw6)):
            extra = ["nodad"] if bits == 128 else []
            ip("addr", "add", f"{own}/{bits}", "dev", "eth0", *extra, netns=netns)
            ip("neigh", "replace", gateway, "lladdr", host_mac, "dev", "eth0", netns=netns)
            ip("route", "add", f"{gateway}/{bits}", "dev", "eth0", netns=netns)
            ip("route", "add", "default", "via", gateway, "dev", "eth0", "onlink", netns=netns)
            ip("neigh", "replace", own, "lladdr", mac, "dev", host, netns=self.name)
            ip("route", "add", f"{own}/{bits}", "dev", host, netns=self.name)
