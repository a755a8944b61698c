"""The kubelet's probes of a container, from the node's network and the kubelet's own cgroup."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from sandbox import container
from sandbox.pod import Container


async def passes(
    place: container.Place,
    addresses: Sequence[str],
    each: Container,
    pid: int,
    probe: Mapping[str, Any],
) -> bool:
    """One attempt of an ``exec``, ``httpGet``, ``tcpSocket`` or ``grpc`` probe."""
    command = _command(place, addresses, each, pid, probe)
    timeout = float(probe.get("timeoutSeconds", 1))
    try:
        done = await asyncio.to_thread(
            subprocess.run, command, check=False, capture_output=True, timeout=timeout + 1
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def period_of(probe: Mapping[str, Any]) -> float:
    """Seconds between two attempts."""
    return float(probe.get("periodSeconds", 10))


def threshold_of(probe: Mapping[str, Any]) -> int:
    """So many failures in a row count as one."""
    return int(probe.get("failureThreshold", 3))


def patience_of(probe: Mapping[str, Any]) -> float:
    """Seconds that a startup probe gives."""
    return float(probe.get("initialDelaySeconds", 0)) + period_of(probe) * threshold_of(probe)


def _command(
    place: container.Place,
    addresses: Sequence[str],
    each: Container,
    pid: int,
    probe: Mapping[str, Any],
) -> list[str]:
    if run := probe.get("exec"):
        return container.enter(pid, run.get("command") or ["false"], each.env)
    timeout = str(probe.get("timeoutSeconds", 1))
    host = addresses[0] if addresses else "127.0.0.1"
    if http := probe.get("httpGet"):
        host = http.get("host") or host
        scheme = str(http.get("scheme", "HTTP")).lower()
        url = f"{scheme}://{_bracketed(host)}:{_port(http['port'], each)}{http.get('path', '/')}"
        headers = [f"-H{h['name']}: {h['value']}" for h in http.get("httpHeaders") or []]
        ask = ["curl", "-sfk", "-o", "/dev/null", "-m", timeout, *headers, url]
    else:
        port = _port((probe.get("tcpSocket") or probe.get("grpc") or {}).get("port", 0), each)
        ask = ["/bin/bash", "-c", f"timeout {timeout} bash -c '</dev/tcp/{host}/{port}'"]
    return place.node.as_kubelet(ask)


def _port(given: int | str, each: Container) -> int:
    return (
        each.ports.get(given, 0) if isinstance(given, str) and not given.isdigit() else int(given)
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
