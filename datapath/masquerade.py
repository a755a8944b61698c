"""What pods send out of the cluster leaves with the node's address: one nftables table of ours.

Conntrack sees only what can be masqueraded: Envoy's connections with clients carry the same
addresses as its own to the server, and must not be taken for them.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Collection, Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from datapath.codec import Prefix
from datapath.consts import MARK_FROM_PROXY, MARK_MASK, MARK_TO_PROXY, MARK_UPSTREAM

TABLE = "inet sidegate"
# Replies to Envoy's own connections carry the pod's address again once they are translated back:
# the mark takes them to Envoy's socket instead of the pod. nft(8) has the priorities' names.
_CHAINS = f"""
 chain untracked_in {{
  type filter hook prerouting priority raw; policy accept;
  meta mark & {MARK_MASK:#x} == {MARK_TO_PROXY:#x} notrack
 }}
 chain untracked_out {{
  type filter hook output priority raw; policy accept;
  meta mark & {MARK_MASK | MARK_UPSTREAM:#x} == {MARK_FROM_PROXY:#x} notrack
 }}
 chain replies {{
  type filter hook prerouting priority dstnat + 10; policy accept;
  ct direction reply ct mark & {MARK_MASK:#x} == {MARK_FROM_PROXY:#x} \
meta mark set meta mark & {0xFFFFFFFF ^ MARK_MASK:#x} | {MARK_TO_PROXY:#x}
 }}
"""


def set_up(cluster_cidrs: Iterable[Prefix], devices: Collection[str]) -> None:
    """Exactly this, at once: a packet meets the old rules or the new ones. ``devices`` are the
    uplinks by name; ``cluster_cidrs`` hold all pods of the cluster, and whatever else is to see
    their own addresses. Raises OSError without nft, CalledProcessError with its words."""
    cidrs = list(cluster_cidrs)  # an nft set takes no overlaps: collapsed
    v4 = collapse_addresses(each for each in cidrs if isinstance(each, IPv4Network))
    v6 = collapse_addresses(each for each in cidrs if isinstance(each, IPv6Network))
    uplinks = ", ".join(f'"{name}"' for name in sorted(devices))
    of_proxy = f"meta mark & {MARK_MASK:#x} == {MARK_FROM_PROXY:#x}"
    rules = []
    for family, inside in (("ip", ", ".join(map(str, v4))), ("ip6", ", ".join(map(str, v6)))):
        if inside and uplinks:
            ends = f"{family} saddr {{ {inside} }} {family} daddr != {{ {inside} }}"
            leaves = f"oifname {{ {uplinks} }} {ends}"
            rules += [
                f"{leaves} {of_proxy} ct mark set {MARK_FROM_PROXY:#x}",
                f"{leaves} masquerade",
            ]
    body = "\n".join(f"  {rule}" for rule in rules)
    chain = f" chain leaving {{\n  type nat hook postrouting priority srcnat;\n{body}\n }}\n"
    _nft(f"table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{{_CHAINS}{chain}}}\n")


def tear_down() -> None:
    """The table goes; that it is gone already is no error, and without nft there is none."""
    if shutil.which("nft"):
        _nft(f"table {TABLE}\ndelete table {TABLE}\n")


def _nft(commands: str) -> None:
    subprocess.run(
        ["nft", "-f", "-"], input=commands, text=True, check=True, capture_output=True, timeout=10
    )
