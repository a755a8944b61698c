"""One container as a process: network, UTS and mount namespaces, cgroup, files, environment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox.node import Node
from sandbox.pod import Container, PodSpec

# Runs inside the new namespaces; what follows is exec'ed, so its pid stays the one we started.
_ENTER = """
set -e
[ -z "$SG_CGROUP" ] || echo $$ > "$SG_CGROUP/cgroup.procs"
hostname "$SG_HOSTNAME"
mount --bind "$SG_HOSTS" /etc/hosts
if [ -d "$SG_FILES" ]; then
  cd "$SG_FILES"
  for top in *; do
    [ -e "$top" ] || continue
    find "$top" -type f | while read -r file; do
      mkdir -p "$(dirname "/$file")"
      [ -e "/$file" ] || touch "/$file"
      mount --bind "$SG_FILES/$file" "/$file"
    done
  done
  cd /
fi
sysctl -qw net.ipv4.ip_unprivileged_port_start=0 2>/dev/null ||
  echo 0 > /proc/sys/net/ipv4/ip_unprivileged_port_start
unset SG_CGROUP SG_HOSTNAME SG_HOSTS SG_FILES
exec "$@"
"""


def start(node: Node, netns: str, pod: PodSpec, container: Container) -> subprocess.Popen[bytes]:
    """Its output goes to a log file under the sandbox directory. Raises OSError."""
    base = node.sandbox_dir / "pods" / f"{pod.namespace}_{pod.name}" / container.name
    files = base / "files"
    for path, content in container.files.items():
        target = files / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    base.mkdir(parents=True, exist_ok=True)
    cgroup = _cgroup(node, pod, container)
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": os.environ.get("HOME", "/root"),
        "HOSTNAME": pod.hostname,
        **({"SIDEGATE_CACHE": cache} if (cache := os.environ.get("SIDEGATE_CACHE")) else {}),
        **container.env,
        "SG_CGROUP": str(cgroup or ""),
        "SG_HOSTNAME": pod.hostname,
        "SG_HOSTS": str(node.sandbox_dir / "hosts"),
        "SG_FILES": str(files),
    }
    with (base / "log").open("ab") as log:
        return subprocess.Popen(
            [
                "nsenter",
                f"--net=/run/netns/{netns}",
                "unshare",
                "--uts",
                "--mount",
                "--propagation",
                "private",
                "/bin/sh",
                "-c",
                _ENTER,
                "sh",
                *container.command,
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=environment,
            cwd="/",
        )


def enter(pid: int, command: Sequence[str], env: Mapping[str, str]) -> list[str]:
    """``command`` as it would run in the container whose process is ``pid``."""
    variables = [f"{name}={value}" for name, value in env.items()]
    return ["nsenter", "-t", str(pid), "--net", "--uts", "--mount", "env", *variables, *command]


def _cgroup(node: Node, pod: PodSpec, container: Container) -> Path | None:
    if node.cgroup is None:
        return None
    path = node.cgroup / f"{pod.namespace}_{pod.name}" / container.name
    path.mkdir(parents=True, exist_ok=True)
    return path
