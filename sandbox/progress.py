"""What a quickstart shows: that something takes its time, and what came of each probe."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from sandbox.kubelet import Kubelet
from sandbox.node import Node
from sandbox.run import sandbox


def progress(console: Console, text: str) -> Progress:
    """A spinner that goes with what it was for; a line where nobody watches."""
    made = Progress(SpinnerColumn(), TextColumn(text), console=console, transient=True)
    made.add_task(text)
    if not console.is_terminal:
        console.print(text)
    return made


@contextlib.asynccontextmanager
async def started(
    console: Console, example: Path, node: Node, chained: str = ""
) -> AsyncIterator[tuple[Kubelet, httpx.AsyncClient]]:
    """As :func:`sandbox.run.sandbox`, with a word on what did not start. Raises SandboxError."""
    async with contextlib.AsyncExitStack() as stack:
        with progress(console, "Starting the node, its agent and Envoy"):
            kubelet, api = await stack.enter_async_context(sandbox(example, node, chained))
        for (namespace, name), why in kubelet.failed.items():
            console.print(f"[red]{namespace}/{name} did not start:[/red] {why}")
        yield kubelet, api


def marked(seen: str, expected: str) -> str:
    """What a probe saw, as the table shows it."""
    ok = seen == expected
    colour = "green" if ok else "bold red"
    return f"[{colour}]{seen}{'' if ok else ' ✘'}[/{colour}]"
