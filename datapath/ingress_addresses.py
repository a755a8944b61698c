"""Addresses that backends see where a request came by a Gateway: on the hairpin device, for Envoy.

Nobody else ever speaks from them: the kernel chooses neither an IPv4 address of host scope nor a
deprecated IPv6 address for a socket that asked for none (RFC 6724, 5, rule 3).
"""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address

from pyroute2 import IPRoute, NetlinkError

from datapath.routing import HAIRPIN

Address = IPv4Address | IPv6Address

_SCOPE_HOST = 254  # rtnetlink(7)
_IFA_F_NODAD = 0x02
_FOREVER = 0xFFFFFFFF


def keep(wanted: frozenset[Address]) -> None:
    """Exactly these. After :func:`routing.set_up`; not within an event loop: pyroute2 runs its own.

    Raises NetlinkError.
    """
    with IPRoute() as ip:
        index = ip.link_lookup(ifname=HAIRPIN)[0]
        present = {
            address: message["prefixlen"]
            for message in ip.get_addr(index=index)
            if not (address := ip_address(message.get_attr("IFA_ADDRESS"))).is_link_local
        }
        for address in present.keys() - wanted:
            ip.addr("del", index=index, address=str(address), prefixlen=present[address])
        for address in wanted - present.keys():
            try:
                ip.addr(
                    "add", index=index, address=str(address), prefixlen=address.max_prefixlen,
                    **_quiet(address),
                )  # fmt: skip
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise


def _quiet(address: Address) -> dict[str, object]:
    if address.version == 4:
        return {"family": socket.AF_INET, "scope": _SCOPE_HOST}
    return {
        "family": socket.AF_INET6,
        "flags": _IFA_F_NODAD,
        "preferred_lft": 0,
        "valid_lft": _FOREVER,
    }
