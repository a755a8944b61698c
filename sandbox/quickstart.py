"""``make run``: the quickstart's pods, policies and probes on a sandbox node of its own."""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import time
from pathlib import Path

import httpx
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sandbox import cluster_quickstart, gateway_quickstart, istio_quickstart, probes
from sandbox.control_plane import ControlPlaneError
from sandbox.kubelet import Kubelet
from sandbox.node import Node
from sandbox.processes import stop_asked
from sandbox.progress import marked, progress, started
from sandbox.run import SandboxError

EXAMPLE = Path(__file__).parent.parent / "examples" / "quickstart"
_WIDE = 130  # columns that the whole table needs
_BROKER_SECONDS = 40.0
_NEXT = """[bold]What to try next[/bold], from another terminal:
  sidegate observe --follow
  sidegate sandbox exec mallory -- curl -m 2 http://orders:8080/v1/orders
  sidegate policy trace --from frontend --to orders --http 'GET /v1/orders'
  sidegate get cnp; sidegate status
  edit {example}/policies.yaml: it takes effect when you save it
(the command is .venv/bin/sidegate; Ctrl-C here ends everything)"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("--once", action="store_true", help="probe, clean up, exit")
    parser.add_argument("--node", default="default")
    parser.add_argument("--cluster", action="store_true", help="a Kubernetes cluster, by the chart")
    parser.add_argument("--gateway", action="store_true", help="Gateway API on one node")
    parser.add_argument("--istio", action="store_true", help="a cluster with Istio: inside mTLS")
    parser.add_argument(
        "--chained",
        default="",
        choices=["bridge", "ptp"],
        help="pods have that CNI plugin's network",
    )
    options = parser.parse_args()
    console = Console()
    if not console.is_terminal:
        console = Console(width=190)  # a log file has no width of its own
    try:
        if options.istio:
            return asyncio.run(istio_quickstart.run(console, "istio", once=options.once))
        if options.cluster:
            return asyncio.run(
                cluster_quickstart.run(
                    console, "sandbox", once=options.once, chained=options.chained
                )
            )
        node = Node(options.node)
        if options.gateway:
            return asyncio.run(gateway_quickstart.run(console, node, once=options.once))
        return asyncio.run(_run(console, node, once=options.once, chained=options.chained))
    except (SandboxError, ControlPlaneError, subprocess.CalledProcessError) as error:
        print(f"quickstart: {error}\n{getattr(error, 'stderr', '') or ''}", file=sys.stderr)
        return 1


async def _run(console: Console, node: Node, *, once: bool, chained: str) -> int:
    stopped = stop_asked()
    async with started(console, EXAMPLE, node, chained) as (kubelet, _):
        with progress(console, "Waiting for the Kafka broker"):
            await _broker_ready(node, kubelet)
        failed = await asyncio.to_thread(_probe, console, node)
        if not once and not stopped.is_set():
            console.print(_NEXT.format(example=EXAMPLE))
            await _show_flows(console, node, stopped)
    return 1 if failed or kubelet.failed else 0


async def _broker_ready(node: Node, kubelet: Kubelet) -> None:
    """Until its topics are there: seen from inside the broker's own pod, which no policy judges."""
    log = node.sandbox_dir / "pods" / "default_kafka" / "broker" / "log"
    deadline = time.monotonic() + _BROKER_SECONDS
    while ("default", "kafka") in kubelet.pods and time.monotonic() < deadline:
        if log.exists() and "Created topic audit" in log.read_text(errors="replace"):
            return
        await asyncio.sleep(0.1)
    raise SandboxError(f"the Kafka broker is not ready; see {log}")


def _probe(console: Console, node: Node) -> int:
    """Print the table; the number of probes that came out otherwise than expected."""
    wide = console.width >= _WIDE
    table = _table(wide)
    failed = 0
    transport = httpx.HTTPTransport(uds=str(node.run_dir / "agent.sock"))
    with httpx.Client(transport=transport, base_url="http://agent") as api:
        for probe in probes.load(EXAMPLE.with_name("quickstart-probes.yaml")):
            since = time.time_ns()
            seen = probes.run(node, probe)
            layer, rule = probes.decided(api, probe, since)
            failed += seen != probe.expect
            seen = marked(seen, probe.expect)
            if wide:
                table.add_row(probe.who, probe.what, probe.expect, seen, layer, rule)
            else:
                what = f"{probe.what}\n  [dim]{layer}  {rule}[/dim]"
                table.add_row(probe.who, what, probe.expect, seen)
    console.print(table)
    total = table.row_count
    console.print(f"{total - failed} of {total} as expected")
    return failed


def _table(wide: bool) -> Table:
    """Where six columns do not fit, who decided is said below what was asked."""
    names: tuple[str, ...] = ("who", "what", "expected", "seen", "layer", "decided by")
    if not wide:
        names = ("who", "what / decided by", "expected", "seen")
    table = Table(title="Probes", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, no_wrap="decided" not in name, overflow="fold")
    return table


async def _show_flows(console: Console, node: Node, stopped: asyncio.Event) -> None:
    cli = Path(sys.executable).parent / "sidegate"
    console.print("[bold]Live flows[/bold]")
    process = await asyncio.create_subprocess_exec(
        str(cli), "observe", "--node", node.name, "--follow", "--last", "10"
    )
    await stopped.wait()
    if process.returncode is None:
        process.terminate()
        await process.wait()


if __name__ == "__main__":
    sys.exit(main())
