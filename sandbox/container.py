"""One container as a process: network, UTS and mount namespaces, cgroup, volumes, environment."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.images import files, search_path
from sandbox.node import Node, remove_cgroup
from sandbox.pod import Container, PodSpec
from sandbox.volumes import Volume

# Runs inside the new namespaces; what follows is exec'ed, so its pid stays the one we started.
_ENTER = """
set -e
[ -z "$SG_CGROUP" ] || echo $$ > "$SG_CGROUP/cgroup.procs"
hostname "$SG_HOSTNAME"
echo "$SG_BINDS" | while IFS=: read -r source target; do
  [ -n "$target" ] || continue
  if [ -d "$source" ]; then mkdir -p "$target"
  elif [ ! -e "$target" ]; then mkdir -p "$(dirname "$target")"; touch "$target"
  fi
  mount --rbind "$source" "$target"
done
sysctl -qw net.ipv4.ip_unprivileged_port_start=0 2>/dev/null ||
  echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start
user=$SG_USER group=$SG_GROUP
unset SG_CGROUP SG_HOSTNAME SG_BINDS SG_USER SG_GROUP
[ "$user" = 0 ] && exec setpriv --regid="$group" --clear-groups -- "$@"
exec setpriv --reuid="$user" --regid="$group" --clear-groups --inh-caps=-all -- "$@"
"""

_SET_UP_LOOKS = 1000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod's processes run: ``netns`` is the pod's or the node's, ``directory`` its files
    (``hosts`` and perhaps ``resolv.conf`` among them)."""

    node: Node
    netns: str
    directory: Path


def new_id() -> str:
    """As a runtime names each start of a container."""
    return secrets.token_hex(32)


def start(
    place: Place, pod: PodSpec, container: Container, container_id: str
) -> subprocess.Popen[bytes]:
    """Its output goes to ``log`` in a directory of its name. Raises OSError."""
    base = place.directory / container.name
    base.mkdir(parents=True, exist_ok=True)
    environment = {
        "PATH": search_path(container.image, os.environ["PATH"]),
        "HOME": os.environ.get("HOME", "/root"),
        "HOSTNAME": pod.hostname,
        **({"SIDEGATE_CACHE": cache} if (cache := os.environ.get("SIDEGATE_CACHE")) else {}),
        **container.env,
        "SG_CGROUP": str(place.node.make_cgroup(_group(pod, container_id)) or ""),
        "SG_HOSTNAME": place.node.name if pod.host_network else pod.hostname,
        "SG_USER": str(container.user),
        "SG_GROUP": str(container.group),
        "SG_BINDS": "\n".join(f"{a}:{b}" for a, b in _binds(place, pod, container)),
    }
    uts = ["--uts", "--mount", "--propagation", "private"]
    with (base / "log").open("ab") as log:
        os.fchmod(log.fileno(), 0o666)  # whoever it runs as may open /dev/stdout
        return subprocess.Popen(
            [*place.node.enter(place.netns), "unshare", *uts,
             "/bin/sh", "-c", _ENTER, "sh", *container.command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
            cwd="/",
        )  # fmt: skip


def await_set_up(pid: int) -> None:
    """Until what was started there has its mounts and is the container's own, or has ended: who
    enters it before sees half of its files."""
    for _ in range(_SET_UP_LOOKS):
        try:
            running = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return
        if b"SG_BINDS" not in running:  # of _ENTER
            return
        time.sleep(0.01)


def end_rest(place: Place, pod: PodSpec, container_id: str) -> None:
    """A container ends with its first process, whatever else it has started (cgroup.kill)."""
    if place.node.cgroup is None:
        return
    group = place.node.cgroup / _group(pod, container_id)
    with contextlib.suppress(FileNotFoundError):
        (group / "cgroup.kill").write_text("1")
        remove_cgroup(group)


def end_pod(place: Place, pod: PodSpec) -> None:
    """Its containers have ended."""
    if place.node.cgroup is not None:
        with contextlib.suppress(FileNotFoundError):
            remove_cgroup(place.node.cgroup / _pod_group(pod))


def write_volumes(place: Place, pod: PodSpec) -> None:
    """The files of the pod's volumes, or their new contents. Raises OSError."""
    for volume in pod.volumes:
        if volume.csi:
            continue  # its driver's
        folder = volume_dir(place, volume)
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        for path, content in volume.files.items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def volume_dir(place: Place, volume: Volume) -> Path:
    """What a container that mounts the volume sees."""
    return place.directory / "volumes" / volume.name


def enter(pid: int, command: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """``command`` as it would run in the container whose process is ``pid``."""
    variables = [f"{name}={value}" for name, value in env.items()]
    return ["nsenter", "-t", str(pid), "--net", "--uts", "--mount", "env", *variables, *command]


def _binds(place: Place, pod: PodSpec, container: Container) -> list[tuple[str, str]]:
    binds = []
    for name in ("hosts", "resolv.conf"):
        if (place.directory / name).exists():
            binds.append((str(place.directory / name), f"/etc/{name}"))
    binds += [(str(file), path) for path, file in files(container.image).items()]
    volumes = {volume.name: volume for volume in pod.volumes}
    for mount in container.mounts:
        volume = volumes[mount.volume]
        source = volume.host_path or str(volume_dir(place, volume))
        if volume.host_path and volume.host_path.rstrip("/") == mount.path:
            continue  # it sees the node's own already
        binds.append((f"{source}/{mount.sub_path}".rstrip("/"), mount.path))
    return binds


def _group(pod: PodSpec, container_id: str) -> str:
    return f"{_pod_group(pod)}/{container_id}"


def _pod_group(pod: PodSpec) -> str:
    """As the kubelet names it (``--cgroup-driver=cgroupfs``)."""
    return f"kubepods/pod{pod.uid}"
