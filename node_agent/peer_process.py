"""Who is at the other end of a Unix socket: by pidfd, so that a pid cannot be another's later."""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from node_agent.endpoints import EndpointRecord

PROXY_CONTAINER = "istio-proxy"
_SO_NETNS_COOKIE, _SO_PEERPIDFD = 71, 77  # asm-generic/socket.h, since Linux 5.14 and 6.5
# linux/pidfd.h, since Linux 6.13: mask, cgroupid, then 12 numbers of which the first is the pid
_PIDFD_GET_INFO = 0xC040FF0B
_PIDFD_INFO_CGROUPID = 1 << 2
_INFO = struct.Struct("<QQ12I")


@dataclass(frozen=True, slots=True)
class Process:
    """``cgroup`` is its path in the hierarchy of version 2, ``cgroup_id`` the kernel's number;
    ``netns`` is the cookie of its network namespace."""

    pid: int
    cgroup: str
    cgroup_id: int
    netns: int


def of(peer: socket.socket) -> Process:
    """Raises OSError: it has ended, or it is in another PID namespace than we."""
    pidfd = peer.getsockopt(socket.SOL_SOCKET, _SO_PEERPIDFD)
    # An accepted Unix socket belongs to the namespace of whoever connected (net/unix/af_unix.c).
    netns = int.from_bytes(peer.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8), "little")
    try:
        asked = bytearray(_INFO.pack(_PIDFD_INFO_CGROUPID, 0, *[0] * 12))
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, asked)
        mask, cgroup_id, pid, *_ = _INFO.unpack(asked)
        if not mask & _PIDFD_INFO_CGROUPID:
            raise OSError("the kernel does not say its cgroup")
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        path = next((line[3:] for line in lines if line.startswith("0::")), "")
    finally:
        os.close(pidfd)
    return Process(pid, path, cgroup_id, netns)


def check(process: Process, record: EndpointRecord) -> None:
    """Raises PermissionError unless it is in the proxy's container of the pod.

    The names of cgroups are the kubelet's (``pod`` and the UID, with dashes or underscores), or
    the sandbox's.
    """
    uid = record.pod_uid
    kubelets = {f"pod{uid}", f"pod{uid.replace('-', '_')}"}
    ours = f"pods/{record.pod_namespace}_{record.pod_name}/{PROXY_CONTAINER}"
    path = process.cgroup
    if path.endswith(ours) or (uid and any(name in path for name in kubelets)):
        return
    raise PermissionError(f"process {process.pid} is in cgroup {path}, not in {ours}")
