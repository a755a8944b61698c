"""What the redirect needs of a node's network besides BPF: a rule, a route, the hairpin device."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from pyroute2 import IPRoute, NetlinkError

from datapath.codec import Address, Prefix
from datapath.consts import MARK_MASK, MARK_TO_PROXY

TABLE = 2004
PROTOCOL = 192  # of the routes that are ours, as rtnetlink(7) knows who made a route
HAIRPIN, HAIRPIN_PEER = "sg_hairpin", "sg_hairpin0"
_RULE_PRIORITY = 9
_FAMILIES = (socket.AF_INET, socket.AF_INET6)
_UNICAST = 1  # RTN_UNICAST (rtnetlink(7))
# A container's own /proc/sys is read-only; the chart mounts the node's elsewhere.
_PROC_SYS = Path(os.environ.get("SIDEGATE_PROC_SYS", "/proc/sys"))


def set_up() -> int:
    """Idempotent. Packets with the redirect mark are delivered locally; returns the hairpin's
    ifindex. Raises NetlinkError."""
    with IPRoute() as ip:
        lo = ip.link_lookup(ifname="lo")[0]
        ip.link("set", index=lo, state="up")
        for family in _FAMILIES:
            _quietly(ip.rule, "add", errno.EEXIST, **_rule(family))
            ip.route("replace", family=family, **_route(lo))
        if not ip.link_lookup(ifname=HAIRPIN):
            ip.link("add", ifname=HAIRPIN, kind="veth", peer={"ifname": HAIRPIN_PEER})
        for name in (HAIRPIN, HAIRPIN_PEER):
            _sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "1")
            ip.link("set", index=ip.link_lookup(ifname=name)[0], state="up", arp=False)
        # What it carries comes from the host's own addresses.
        _sysctl(f"net/ipv4/conf/{HAIRPIN}/accept_local", "1")
        _sysctl(f"net/ipv4/conf/{HAIRPIN}/rp_filter", "0")
        _sysctl(f"net/ipv6/conf/{HAIRPIN}/disable_ipv6", "0")
        _sysctl("net/ipv4/conf/all/rp_filter", "0")
        found: list[int] = ip.link_lookup(ifname=HAIRPIN)
        return found[0]


def tear_down() -> None:
    """The reverse; what is already gone is no error."""
    with IPRoute() as ip:
        for family in _FAMILIES:
            _quietly(ip.rule, "del", errno.ENOENT, **_rule(family))
            _quietly(ip.flush_routes, None, errno.ENOENT, family=family, table=TABLE)
        for index in ip.link_lookup(ifname=HAIRPIN):
            ip.link("del", index=index)


def set_routes(routes: Mapping[Prefix, Address]) -> None:
    """Exactly these routes of ours to other nodes' pods, by the node that is the next hop.

    Not within an event loop: pyroute2 runs its own. Raises NetlinkError.
    """
    with IPRoute() as ip:
        for family in _FAMILIES:
            version = 4 if family == socket.AF_INET else 6
            wanted = {str(p): str(via) for p, via in routes.items() if p.version == version}
            present = {
                f"{route.get_attr('RTA_DST')}/{route['dst_len']}": route.get_attr("RTA_GATEWAY")
                for route in ip.get_routes(family=family, proto=PROTOCOL)
            }
            for prefix in present.keys() - wanted.keys():
                _quietly(ip.route, "del", errno.ESRCH, dst=prefix, proto=PROTOCOL, family=family)
            for prefix, via in wanted.items():
                if present.get(prefix) != via:
                    ip.route("replace", dst=prefix, gateway=via, proto=PROTOCOL, family=family)


def is_bridged(port: int) -> bool:
    """Whether the interface is the port of a bridge, which switches frames past our sockets.

    Not within an event loop: pyroute2 runs its own. Raises NetlinkError.
    """
    with IPRoute() as ip:
        (link,) = ip.link("get", index=port)
        return link.get_attr("IFLA_MASTER") is not None


def leads_to(address: Address, port: int) -> bool:
    """Whether this node's packets for the address leave by the interface, or by its bridge.

    Not within an event loop. Raises NetlinkError.
    """
    with IPRoute() as ip:
        (link,) = ip.link("get", index=port)
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        try:
            (route,) = ip.route("get", dst=str(address), family=family)
        except NetlinkError as error:
            if error.code == errno.ENETUNREACH:
                return False
            raise
        return route.get_attr("RTA_OIF") in (port, link.get_attr("IFLA_MASTER"))


def default_devices() -> tuple[str, ...]:
    """The interfaces by which default routes leave, in order of their names. Ours to Envoy is none.

    Not within an event loop. Raises NetlinkError.
    """
    with IPRoute() as ip:
        found = {
            route.get_attr("RTA_OIF")
            for family in _FAMILIES
            for route in ip.get_default_routes(family=family)
            if route["type"] == _UNICAST
        }
    return tuple(sorted(socket.if_indextoname(index) for index in found if index))


def ifindex_of(name: str) -> int:
    """Raises OSError where there is no such interface."""
    return socket.if_nametoindex(name)


def _rule(family: int) -> dict[str, int]:
    return {
        "family": family,
        "table": TABLE,
        "priority": _RULE_PRIORITY,
        "fwmark": MARK_TO_PROXY,
        "fwmask": MARK_MASK,
    }


def _route(lo: int) -> dict[str, object]:
    return {"dst": "default", "table": TABLE, "type": "local", "oif": lo, "scope": 254}


def _quietly(call: object, command: str | None, number: int, **arguments: object) -> None:
    assert callable(call)
    try:
        call(*([command] if command else []), **arguments)
    except NetlinkError as error:
        if error.code != number:
            raise


def _sysctl(name: str, value: str) -> None:
    (_PROC_SYS / name).write_text(value)
