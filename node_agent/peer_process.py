"""Who is at the other end of a Unix socket: by pidfd, so that a pid cannot be another's later."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from node_agent.endpoints import EndpointRecord

PROXY_CONTAINER = "istio-proxy"
STATUSES = ("initContainerStatuses", "containerStatuses")
# Of a pod, as the kubelet names it by either of its drivers: systemd's knows no dashes. In it a
# container is its ID, or RUNTIME-ID.scope.
_POD_CGROUP = re.compile(r"(?:^|-)pod([0-9a-f_-]+)(?:\.slice)?$")
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


def proxy_id(pod: Mapping[str, Any]) -> str:
    """The ID of a pod's container ``istio-proxy``, native sidecar or not (API: ContainerStatus);
    empty until the kubelet has told of it, some time after it has started it."""
    status = pod.get("status") or {}
    for kind in STATUSES:
        for each in status.get(kind) or []:
            if each.get("name") == PROXY_CONTAINER:
                return str(each.get("containerID") or "").partition("://")[2]
    return ""


def place_of(cgroup: str) -> tuple[str, str]:
    """The UID of the pod and the ID of the container that a cgroup belongs to; empty if to none.

    The outermost pod counts: a container may make cgroups below its own, of whatever name.
    """
    for name, below in pairwise(cgroup.split("/")):
        if found := _POD_CGROUP.search(name):
            return found[1].replace("_", "-"), below.removesuffix(".scope").rpartition("-")[2]
    return "", ""


def check(process: Process, record: EndpointRecord, pod: Mapping[str, Any]) -> None:
    """Raises PermissionError unless it is in the container ``istio-proxy`` of the pod, whose
    manifest, with status, is ``pod``."""
    wanted = proxy_id(pod) if pod.get("metadata", {}).get("uid") == record.pod_uid else ""
    if not wanted or place_of(process.cgroup) != (record.pod_uid, wanted):
        raise PermissionError(
            f"process {process.pid} is in cgroup {process.cgroup}, not in that of {record.pod}'s "
            f"container {PROXY_CONTAINER}: {wanted or 'the kubelet has told of none yet'}"
        )
