"""The node's own addresses: who speaks from them is the host. Followed by rtnetlink(7)."""

from __future__ import annotations

import socket
from ipaddress import ip_network

from pyroute2 import IPRoute

from datapath.codec import Prefix

_RTMGRP_IPV4_IFADDR, _RTMGRP_IPV6_IFADDR = 0x10, 0x100


def own_addresses() -> frozenset[Prefix]:
    """Of this network namespace. Not within an event loop: pyroute2 runs its own."""
    with IPRoute() as ip:
        found = [message.get_attr("IFA_ADDRESS") for message in ip.get_addr()]
    return frozenset(ip_network(address) for address in found)


class AddressWatch:
    """``fd`` is readable when an address came or went; :meth:`drain` makes it quiet again."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, _RTMGRP_IPV4_IFADDR | _RTMGRP_IPV6_IFADDR))

    @property
    def fd(self) -> int:
        return self._socket.fileno()

    def drain(self) -> None:
        """An overrun (ENOBUFS) is news as well: the caller reads all addresses anyway."""
        try:
            while self._socket.recv(65536):
                pass
        except OSError:
            return

    def close(self) -> None:
        self._socket.close()
