"""Addresses that this node holds for others: on a device of it, and told to the neighbours.

ARP announcements (RFC 5227, 3) and unsolicited neighbour advertisements (RFC 4861, 7.2.6). Not
within an event loop: pyroute2 runs its own.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_interface

from pyroute2 import IPRoute, NetlinkError

Address = IPv4Address | IPv6Address

# Of addresses that are ours, as rtnetlink knows who made one (IFA_PROTO, Linux 5.18).
PROTOCOL = 192
_IFA_F_NODAD = 0x02
_ETH_P_ARP = 0x0806
_BROADCAST = b"\xff" * 6
_ALL_NODES = "ff02::1"
_NA, _OVERRIDE, _TARGET_LINK_LAYER = 136, 0x20, 2


def hold(address: Address, devices: Sequence[str]) -> None:
    """On the device whose network has it, else the first. Again is no error, and tells again.

    Raises NetlinkError, OSError.
    """
    with IPRoute() as ip:
        name, index, mac = _device(ip, address, devices)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            ip.addr(
                "add", index=index, family=family, address=str(address),
                prefixlen=address.max_prefixlen, proto=PROTOCOL,
                **({"flags": _IFA_F_NODAD} if address.version == 6 else {}),
            )  # fmt: skip
        except NetlinkError as error:
            if error.code != errno.EEXIST:
                raise
    if isinstance(address, IPv4Address):
        _announce_arp(address, name, mac)
    else:
        _announce_nd(address, index, mac)


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


def _device(ip: IPRoute, address: Address, devices: Sequence[str]) -> tuple[str, int, bytes]:
    if not devices:
        raise OSError(f"{address}: no uplink to announce it on; name one with --device")
    best = devices[0]
    for name in devices:
        for message in ip.get_addr(index=socket.if_nametoindex(name)):
            network = ip_interface(f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}")
            if address.version == network.version and address in network.network:
                best = name
    index = socket.if_nametoindex(best)
    (link,) = ip.link("get", index=index)
    return best, index, bytes.fromhex(link.get_attr("IFLA_ADDRESS").replace(":", ""))


def _announce_arp(address: IPv4Address, device: str, mac: bytes) -> None:
    own = address.packed
    packet = _BROADCAST + mac + struct.pack("!H", _ETH_P_ARP)
    packet += struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + mac + own + bytes(6) + own
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((device, _ETH_P_ARP))
        sender.send(packet)


def _announce_nd(address: IPv6Address, index: int, mac: bytes) -> None:
    # The kernel fills in the checksum of ICMPv6 (RFC 3542, 3.1).
    message = struct.pack("!BBHI", _NA, 0, 0, _OVERRIDE << 24) + address.packed
    message += struct.pack("!BB", _TARGET_LINK_LAYER, 1) + mac
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sender:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sender.sendto(message, (_ALL_NODES, 0, 0, index))
