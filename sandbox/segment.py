"""The network between the nodes of one machine: a router namespace whose bridge they share."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Interface

UPLINK = "eth0"
_BRIDGE = "br0"
_ROUTER = 1


def ip(*arguments: str, netns: str | None = None) -> None:
    """Raises CalledProcessError, with what ip said in its stderr."""
    where = ["-n", netns] if netns else []
    subprocess.run(["ip", *where, *arguments], check=True, capture_output=True, text=True)


def addresses(number: int) -> tuple[IPv4Interface, IPv6Interface]:
    """Of the host with this number (1 is the router's): one of each family."""
    return IPv4Interface(f"192.0.2.{number}/24"), IPv6Interface(f"2001:db8::{number}/64")


@dataclass(frozen=True, slots=True)
class Segment:
    """Hosts are network namespaces; each gets :data:`UPLINK` and a default route to the router."""

    name: str

    @property
    def router_netns(self) -> str:
        return f"sidegate-{self.name}-router"

    def create(self) -> None:
        """Raises CalledProcessError."""
        ip("netns", "add", self.router_netns)
        ip("link", "set", "lo", "up", netns=self.router_netns)
        ip("link", "add", _BRIDGE, "type", "bridge", netns=self.router_netns)
        _address(self.router_netns, _BRIDGE, _ROUTER)
        for key in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            command = ["ip", "netns", "exec", self.router_netns, "sysctl", "-qw", f"{key}=1"]
            subprocess.run(command, check=True, capture_output=True)

    def attach(self, netns: str, number: int) -> None:
        """Raises CalledProcessError."""
        port = f"port{number}"
        ip("link", "add", UPLINK, "type", "veth", "peer", "name", port,
           "netns", self.router_netns, netns=netns)  # fmt: skip
        ip("link", "set", port, "master", _BRIDGE, "up", netns=self.router_netns)
        _address(netns, UPLINK, number)
        for router in addresses(_ROUTER):
            ip("route", "add", "default", "via", str(router.ip), netns=netns)

    def detach(self, number: int) -> None:
        """At once: of a deleted namespace the kernel takes the link away some time later."""
        command = ["ip", "-n", self.router_netns, "link", "del", f"port{number}"]
        subprocess.run(command, check=False, capture_output=True)

    def route(self, prefix: str, number: int, netns: str | None = None) -> None:
        """``prefix`` is behind that host, for the router or for ``netns``."""
        via = addresses(number)[":" in prefix]
        ip("route", "replace", prefix, "via", str(via.ip), netns=netns or self.router_netns)

    def remove(self) -> None:
        subprocess.run(["ip", "netns", "del", self.router_netns], check=False, capture_output=True)


def _address(netns: str, device: str, number: int) -> None:
    ip("link", "set", device, "up", netns=netns)
    for address in addresses(number):
        ip("addr", "add", str(address), "dev", device,
           *(["nodad"] if address.version == 6 else []), netns=netns)  # fmt: skip
