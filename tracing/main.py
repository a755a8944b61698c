"""``sidegate trace drops|tcp``: the kernel's own events of a node's endpoints."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracing.btf import VMLINUX

PYTHON = Path("/usr/bin/python3")
_ROOT = Path(__file__).parent.parent
_REFRESH_SECONDS = 1.0
# In a mount namespace of its own: BCC looks for tracefs in both places, and neither need be there.
# The last line on stderr is what the user is told, so each failure ends with one that says it all.
_MOUNTS = (
    'lacks() { echo "$1 cannot be mounted: the kernel needs $2" >&2; exit 1; };'
    ' mount -t overlay overlay -o "$OVERLAY" /mnt || lacks "kernel headers" CONFIG_OVERLAY_FS;'
    " for fs in tracefs:/sys/kernel/tracing debugfs:/sys/kernel/debug; do"
    " mountpoint -q ${fs#*:} || mount -t ${fs%%:*} ${fs%%:*} ${fs#*:}"
    ' || lacks ${fs%%:*} "CONFIG_FTRACE and CONFIG_DEBUG_FS"; done;'
    ' exec "$@"'
)

Names = Callable[[], Mapping[str, str]]
Event = dict[str, Any]


class Missing(Exception):
    """Something that tracing needs is not here; the message says what, and how to get it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a trace ends by itself; None: never. ``everything``: not of endpoints only."""

    seconds: float | None = None
    count: int | None = None
    everything: bool = False


def check() -> None:
    """Raises Missing."""
    if os.geteuid() != 0:
        raise Missing("tracing needs root")
    if not VMLINUX.exists():
        raise Missing(f"the kernel has no {VMLINUX} (CONFIG_DEBUG_INFO_BTF)")
    if not _has_bcc():
        raise Missing("BCC is not here: apt-get install python3-bpfcc linux-headers-amd64")
    if not _headers():
        raise Missing("kernel headers are not here: apt-get install linux-headers-amd64")


def _has_bcc() -> bool:
    """From the probe's own directory, so that what is found here is what the probe will find."""
    try:
        found = subprocess.run(
            [PYTHON, "-c", "from bcc import BPF"], check=False, capture_output=True, cwd=_ROOT
        )
    except OSError:
        return False
    return found.returncode == 0


def _headers() -> tuple[Path, Path] | None:
    """Debian's common and architecture trees of one version, whichever is the newest."""
    for common in sorted(Path("/usr/src").glob("linux-headers-*-common"), reverse=True):
        stem = common.name.removesuffix("common")
        for own in sorted(common.parent.glob(f"{stem}*")):
            if own != common:
                return common, own
    return None


def trace(what: str, names: Names, limits: Limits) -> Iterator[Event]:
    """Events of ``drops`` or ``tcp`` with the pods at both ends. Raises Missing.

    The first is ``{"kind": "ready"}``; from then on nothing is missed.
    """
    check()
    headers = _headers()
    assert headers
    overlay = {"OVERLAY": f"lowerdir={headers[0]}:{headers[1]}", "BCC_KERNEL_SOURCE": "/mnt"}
    # Without the first the probe would outlive a killed `sidegate trace`, as root.
    command = ["setpriv", "--pdeathsig", "TERM", "unshare", "--mount", "--propagation", "private"]
    process = subprocess.Popen(
        [*command, "sh", "-c", _MOUNTS, "trace", str(PYTHON), "-m", "tracing.probe", what],
        env=os.environ | overlay,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
    )
    # Not SIGINT: Python drops a KeyboardInterrupt in a C callback, which is where a busy probe is.
    timer = threading.Timer(limits.seconds or 0, process.terminate)
    try:
        yield from _events(process, names, limits, timer)
    finally:
        timer.cancel()
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        process.wait(10)


def _events(
    process: subprocess.Popen[str], names: Names, limits: Limits, timer: threading.Timer
) -> Iterator[Event]:
    assert process.stdout
    assert process.stderr
    pods, asked, seen = dict(names()), time.monotonic(), 0
    for line in process.stdout:
        event = json.loads(line)
        if event["kind"] == "ready" and limits.seconds is not None:
            timer.start()
        if event["kind"] in ("ready", "lost"):
            yield event
            continue
        ends = {event["source"], event["destination"]}
        if not ends <= pods.keys() and time.monotonic() - asked > _REFRESH_SECONDS:
            pods, asked = dict(names()), time.monotonic()
        if limits.everything or ends & pods.keys():
            yield named(event, pods)
            seen += 1
            if seen == limits.count:
                return
    if process.wait(10) not in (0, -signal.SIGTERM):
        said = process.stderr.read().strip().splitlines()
        raise Missing("the probe ended: " + (said[-1] if said else str(process.returncode)))


def named(event: Event, pods: Mapping[str, str]) -> Event:
    """The event with the pods of its addresses, empty where there is none."""
    return event | {
        "source_pod": pods.get(event["source"], ""),
        "destination_pod": pods.get(event["destination"], ""),
    }


def text(event: Event) -> str:
    """One event for people: what happened, between whom."""
    what = {
        "drop": lambda: f"dropped    {event['reason']}",
        "retransmit": lambda: f"retransmit {event['state']}",
        "state": lambda: f"state      {event['old']} -> {event['state']}",
    }[event["kind"]]()
    return f"{what:<36} {event['protocol']} {_end(event, 'source')} -> {_end(event, 'destination')}"


def _end(event: Event, side: str) -> str:
    port = event["sport" if side == "source" else "dport"]
    name = event[f"{side}_pod"] or (f"[{event[side]}]" if ":" in event[side] else str(event[side]))
    return f"{name}:{port}" if port else name
