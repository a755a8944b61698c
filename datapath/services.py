"""ClusterIP Services of one node, as the agent sees them: programs of its cgroup and their maps."""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

import structlog

from datapath import namespaces
from datapath.build import SOCK_OBJECT
from datapath.libbpf import CGROUP_HOOKS, BpfError
from datapath.programs import Programs
from datapath.service_codec import ServiceCounter
from datapath.service_map import ServiceMap
from datapath.service_model import Backend, Frontend, ServicePort
from datapath.sock_diag import end_datagrams

log = structlog.get_logger(__name__)


class Services:
    """All is pinned: closing it, or the death of the process, changes no translation.

    Calls block for the kernel's work, some microseconds a backend; where a datagram backend went,
    besides some 100 µs for each network namespace below the cgroup.
    """

    def __init__(self, bpf_dir: Path, cgroup: Path) -> None:
        """Load, or take over what is pinned in ``bpf_dir``, which :class:`Datapath` may share.

        ``cgroup`` is a cgroup v2 directory; sockets made below it are translated from the first
        :meth:`replace` on. Raises BpfError or OSError.
        """
        self._cgroup = cgroup
        self._programs = Programs(bpf_dir, SOCK_OBJECT)
        self._map = ServiceMap(self._programs.maps)

    def replace(self, table: Mapping[Frontend, ServicePort]) -> None:
        """Exactly this table, then the programs of this version. Raises as :meth:`sync`.

        In this order, so that a first agent, or a new version's empty maps, never answer for
        Services that are not known yet.
        """
        gone = dict.fromkeys(self._map.frontends - table.keys())
        try:
            self._write({**gone, **table})
        finally:
            for hook in CGROUP_HOOKS:
                self._programs.attach_cgroup(f"sock_{hook}", self._cgroup, hook)
            self._programs.detach_cgroups(keep=self._cgroup)
        # An earlier agent may have died between a change and the end of what hung on it.
        self._end_stale_datagrams()

    def sync(self, changes: Mapping[Frontend, ServicePort | None]) -> None:
        """Write what changed; None for a frontend that went.

        Raises BpfError if a map is full: the frontends that found no place keep what they had, all
        others are written.
        """
        if self._write(changes):
            self._end_stale_datagrams()

    def set_bypass(self, cookies: AbstractSet[int]) -> None:
        """Exactly these network namespaces (see :func:`namespaces.cookie_of`) are not translated:
        pods whose sidecar must see the Service's address."""
        bypass = self._programs.maps["service_bypass"]
        wanted = {cookie.to_bytes(8, "little") for cookie in cookies}
        for key in {key for key, _ in bypass.items()} - wanted:
            bypass.delete(key)
        for key in wanted:
            bypass.set(key, (1).to_bytes(4, "little"))

    def dump(self) -> list[dict[str, Any]]:
        """What the kernel has, a row for each frontend."""
        return [
            {
                "frontend": _text(frontend),
                "protocol": frontend.protocol.name,
                "backends": [_text(each) for each in port.backends],
                "draining": [_text(each) for each in port.draining],
                "affinity_seconds": port.affinity_seconds or None,
            }
            for frontend, port in sorted(
                self._map.table().items(),
                key=lambda item: (item[0].address.packed, item[0].port, item[0].protocol),
            )
        ]

    def counters(self) -> dict[str, int]:
        """Refused connections and datagrams: ``no_backend`` (the Service has none) and
        ``missing_backend`` (a slot was empty: a defect)."""
        counters = self._programs.maps["service_counters"]
        return {
            slot.name.lower(): sum(
                value
                for (value,) in struct.iter_unpack(
                    "<Q", counters.get(int(slot).to_bytes(4, "little")) or b""
                )
            )
            for slot in ServiceCounter
        }

    def close(self) -> None:
        """Translation goes on."""
        self._programs.close()

    def destroy(self) -> None:
        """Give the cgroup back, then the maps; before a Datapath of the same directory."""
        self._programs.detach_cgroups()
        self._programs.unpin_maps()
        self._programs.close()

    def _write(self, changes: Mapping[Frontend, ServicePort | None]) -> bool:
        """Whether a backend of datagrams went. Deletions first: they make room."""
        went, failure = False, None
        for frontend, port in changes.items():
            if port is None:
                went |= self._map.delete(frontend)
        for frontend, port in changes.items():
            if port is not None:
                try:
                    went |= self._map.set(frontend, port)
                except BpfError as error:
                    failure = error
                    log.error("service not written", frontend=_text(frontend), error=str(error))
        if failure:
            raise failure
        return went

    def _end_stale_datagrams(self) -> None:
        for namespace in namespaces.of_cgroup(self._cgroup):
            try:
                ended = end_datagrams(namespace, self._map.is_stale)
            except OSError as error:
                if error.errno != errno.ENOENT:  # its last process went
                    log.warning(
                        "sockets of a namespace keep backends that went",
                        namespace=str(namespace), error=str(error),
                    )  # fmt: skip
            else:
                if ended:
                    log.info("ended sockets of backends that went", sockets=ended)


def _text(at: Frontend | Backend) -> str:
    return f"[{at.address}]:{at.port}" if at.address.version == 6 else f"{at.address}:{at.port}"
