"""Addresses that this node holds for others: on a device of it, and told to the neighbours.

ARP announcements (RFC 5227, 3) and unsolicited neighbour advertisements (RFC 4861, 7.2.6). Not
within an event loop: pyroute2 runs its own.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_interface

from pyroute2 import IPRoute, NetlinkError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Of addresses that are ours, as rtnetlink knows who made one (IFA_PROTO, Linux 5.18).
PROTOCOL = 192
_IFA_F_NODAD = 0x02
_ETH_P_ARP = 0x0806
_BROADCAST = b"\xff" * 6
_ALL_NODES = "ff02::1"
_NA, _OVERRIDE, _TARGET_LINK_LAYER = 136, 0x20, 2


@dataclass(frozen=True, slots=True)
class _Link:
    """``networks`` are those of addresses that are not ours."""

    name: str
    index: int
    mac: bytes
    networks: tuple[Network, ...]


def hold(addresses: Collection[Address], devices: Sequence[str]) -> None:
    """Each on the device whose network has it, else the first. Again is no error, and tells again.

    Raises NetlinkError, OSError.
    """
    if not addresses:
        return
    with IPRoute() as ip:
        links, present = _links(ip, devices)
        if not links:
            text = "no uplink to announce it on; name one with --device"
            raise OSError(f"{min(map(str, addresses))}: {text}")
        placed = [(address, _link_of(address, links)) for address in addresses]
        with contextlib.ExitStack() as stack:
            told = _Neighbours(stack)
            for address, link in placed:
                if address not in present:
                    _add(ip, address, link)
                told.tell(address, link)


def release_others(held: frozenset[Address]) -> None:
    """Takes every address away that :func:`hold` gave, but these. Raises NetlinkError."""
    with IPRoute() as ip:
        for message in ip.get_addr():
            text = message.get_attr("IFA_ADDRESS")
            if message.get_attr("IFA_PROTO") != PROTOCOL or ip_interface(text).ip in held:
                continue
            try:
                ip.addr("del", index=message["index"], address=text, prefixlen=message["prefixlen"])
            except NetlinkError as error:
                if error.code != errno.EADDRNOTAVAIL:
                    raise


def _links(ip: IPRoute, devices: Sequence[str]) -> tuple[list[_Link], set[Address]]:
    """With the addresses of ours that they have."""
    links, present = [], set()
    for name in devices:
        index = socket.if_nametoindex(name)
        networks = []
        for message in ip.get_addr(index=index):
            found = ip_interface(f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}")
            if message.get_attr("IFA_PROTO") == PROTOCOL:
                present.add(found.ip)
            else:
                networks.append(found.network)
        (link,) = ip.link("get", index=index)
        mac = bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", ""))
        links.append(_Link(name, index, mac, tuple(networks)))
    return links, present


def _link_of(address: Address, links: Sequence[_Link]) -> _Link:
    near = (link for link in links if any(address in network for network in link.networks))
    return next(near, links[0])


def _add(ip: IPRoute, address: Address, link: _Link) -> None:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        ip.addr(
            "add", index=link.index, family=family, address=str(address),
            prefixlen=address.max_prefixlen, proto=PROTOCOL,
            **({"flags": _IFA_F_NODAD} if address.version == 6 else {}),
        )  # fmt: skip
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


class _Neighbours:
    """Its sockets, one for each device and family, are closed with ``stack``."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack
        self._sockets: dict[tuple[str, int], socket.socket] = {}

    def tell(self, address: Address, link: _Link) -> None:
        """Raises OSError."""
        key = link.name, address.version
        if key not in self._sockets:
            opened = _packets(link) if address.version == 4 else _icmp(link)
            self._sockets[key] = self._stack.enter_context(opened)
        if isinstance(address, IPv4Address):
            self._sockets[key].send(_arp(address, link.mac))
        else:
            where = (_ALL_NODES, 0, 0, link.index)
            self._sockets[key].sendto(_advertisement(address, link.mac), where)


def _packets(link: _Link) -> socket.socket:
    sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    sender.bind((link.name, _ETH_P_ARP))
    return sender


def _icmp(link: _Link) -> socket.socket:
    sender = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
    sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, link.index)
    return sender


def _arp(address: IPv4Address, mac: bytes) -> bytes:
    own = address.packed
    packet = _BROADCAST + mac + struct.pack("!H", _ETH_P_ARP)
    return packet + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + own + bytes(6) + own


def _advertisement(address: IPv6Address, mac: bytes) -> bytes:
    """The kernel fills in the checksum of ICMPv6 (RFC 3542, 3.1)."""
    message = struct.pack("!BBHI", _NA, 0, 0, _OVERRIDE << 24) + address.packed
    return message + struct.pack("!BB", _TARGET_LINK_LAYER, 1) + mac
