"""The node's addresses with identity ``ingress``: what backends see of a Gateway's requests."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

from datapath import ingress_addresses
from datapath.codec import Address, Prefix
from kube_store.files import replace_file
from node_agent.config import AgentConfig
from node_agent.enforcement import Enforcement
from node_agent.gateways import Gateways
from node_agent.member import Member

_OWNER = "ingress"  # a pod's has a space in it, so that CNI GC leaves this one alone
_MOST_TRIED = 65_536  # as the CNI plugin (cni_plugin/src/ipam.rs)


class Ingress:
    """``gateways`` and ``member`` are None where there are none, and where the node is alone."""

    def __init__(
        self,
        config: AgentConfig,
        enforcement: Enforcement,
        gateways: Gateways | None,
        member: Member | None,
    ) -> None:
        self._config, self._enforcement = config, enforcement
        self._gateways, self._member = gateways, member

    async def settle(self) -> None:
        """By what is known now. Raises NetlinkError, OSError."""
        addresses = self._addresses()
        # It is known whose they are before anybody speaks from them.
        await self._enforcement.set_ingress_addresses(map(ip_network, addresses))
        await asyncio.to_thread(ingress_addresses.keep, frozenset(addresses))
        if self._member:
            self._member.announce_ingress(addresses)
        if self._gateways:
            self._gateways.leave_from(map(str, addresses))

    async def run(self) -> None:
        """Until the node has got its pod CIDRs, where it had none at first."""
        if self._member and not self._member.addressed.is_set():
            await self._member.addressed.wait()
            await self.settle()

    def _addresses(self) -> tuple[Address, ...]:
        """Of the pod CIDRs, the way to which is that to the pods, unless another CNI plugin gives
        those out. A node by itself has none: beyond its uplinks nobody would find the way back."""
        if self._gateways is None:
            return ()
        if self._config.ingress_addresses or self._member is None or self._config.cni_chained:
            return tuple(map(ip_address, self._config.ingress_addresses))
        return reserve(self._config.ipam_dir, self._member.cluster.pod_cidrs)


def reserve(directory: Path, cidrs: Iterable[str]) -> tuple[Address, ...]:
    """One of each CIDR: the one that was reserved before, else the last that is free.

    ``directory`` is where the CNI plugin keeps addresses of pods: it gives these to none. None of a
    CIDR that is full. Raises OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return tuple(
            address
            for cidr in cidrs
            if (address := _reserve_in(directory, ip_network(cidr))) is not None
        )


def _reserve_in(directory: Path, cidr: Prefix) -> Address | None:
    owners = dict(_owners(directory))
    own = (address for address, owner in owners.items() if owner == _OWNER and address in cidr)
    if (address := next(own, None)) is not None:
        return address
    free = (address for address in _last_first(cidr) if address not in owners)
    if (address := next(free, None)) is not None:
        replace_file(directory / str(address), _OWNER.encode())
    return address


def _owners(directory: Path) -> Iterator[tuple[Address, str]]:
    for path in directory.iterdir():
        try:
            address = ip_address(path.name)
        except ValueError:
            continue
        yield address, path.read_text()


def _last_first(cidr: Prefix) -> Iterator[Address]:
    """Without the network's own, the gateway's and the broadcast address."""
    size = min(cidr.num_addresses, _MOST_TRIED)
    broadcast = cidr.version == 4 and cidr.num_addresses <= _MOST_TRIED
    return (cidr[number] for number in range(size - 1 - broadcast, 1, -1))
