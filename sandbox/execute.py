"""``sidegate sandbox exec``: a command inside a running pod."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence

from sandbox.container import await_set_up, enter
from sandbox.node import Node


class NoSuchPod(LookupError):
    """There is no such running pod; the message lists those there are."""


def command_in(node: Node, pod: str, command: Sequence[str]) -> list[str]:
    """``pod`` is ``name`` or ``namespace/name``. Raises NoSuchPod."""
    namespace, _, name = pod.rpartition("/")
    path = node.sandbox_dir / "pods" / f"{namespace or 'default'}_{name}" / "state.json"
    try:
        state = json.loads(path.read_text())
    except FileNotFoundError:
        known = sorted(p.parent.name.replace("_", "/") for p in path.parent.parent.glob("*/*.json"))
        raise NoSuchPod(f"no pod {pod!r} runs here; there are: {', '.join(known)}") from None
    pid = next(iter(state["pids"].values()))
    await_set_up(pid)
    return enter(pid, command, state["env"])


def execute(node_name: str, pod: str, command: Sequence[str]) -> int:
    """Run it with our own terminal; its exit code."""
    try:
        inside = command_in(Node(node_name), pod, command)
    except NoSuchPod as error:
        print(f"sandbox: {error}", file=sys.stderr)
        return 2
    return subprocess.run(inside, check=False).returncode
