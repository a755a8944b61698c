"""The command line of the test."""

# ruff: noqa: PLC0415 - what a command needs is loaded when it runs, so that --help is quick

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sidegate_cli.failure import Failure
from sidegate_cli.options import Output, found_kubeconfig, group
from sidegate_cli.output import Format, show

if TYPE_CHECKING:
    from sidegate_cli.connectivity.runner import Outcome

_STOPPED = 130  # as shells have it for Ctrl-C

app = group("Whether a cluster's traffic flows as its policies say.")


@app.command("test")
def run_test(
    kubeconfig: Annotated[
        Path | None, typer.Option(envvar="KUBECONFIG", dir_okay=False, exists=True)
    ] = None,
    namespace: Annotated[str, typer.Option(help="Made for the test.")] = "sidegate-test",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the pods running.")] = False,
    image: Annotated[str, typer.Option(help="With http and kcat.")] = "sidegate/connectivity",
    istio: Annotated[
        bool, typer.Option("--istio", help="In a mesh: with sidecars, without, and mixed.")
    ] = False,
    kafka_image: Annotated[str, typer.Option(help="Of the broker.")] = "apache/kafka:4.1.0",
    output: Output = Format.TABLE,
) -> None:
    """Deploy clients and servers, try what policies allow and deny, and clean up.

    Exit code 1 if anything came out otherwise. Who stops it (Ctrl-C) finds nothing left either.
    """
    from rich.console import Console

    from kube_store.kube_client import CONNECTION_ERRORS, KubeError
    from sidegate_cli.connectivity.cluster import NotReady
    from sidegate_cli.connectivity.objects import Images
    from sidegate_cli.connectivity.runner import Options, run

    console = Console(highlight=False, stderr=output is not Format.TABLE)

    def tell(outcome: Outcome) -> None:
        mark = "[green]✔[/]" if outcome.ok else "[red]✘[/]"
        wrong = "" if outcome.ok else f"  [red]saw {outcome.seen}[/]"
        console.print(f"  {mark} {outcome.case} [dim]({outcome.pod})[/]: {outcome.expected}{wrong}")

    options = Options(namespace, Images(image, kafka_image), keep, istio)
    try:
        outcomes = asyncio.run(
            _until_stopped(run(found_kubeconfig(kubeconfig), options, tell, console.print))
        )
    except (KeyboardInterrupt, asyncio.CancelledError):
        raise Failure("connectivity test: stopped", _STOPPED) from None
    except (NotReady, KubeError, *CONNECTION_ERRORS) as error:
        raise Failure(f"connectivity test: {error}", 1) from None
    wrong = [each for each in outcomes if not each.ok]
    rows = [
        {"stage": o.stage, "case": o.case, "pod": o.pod, "expected": o.expected, "seen": o.seen,
         "ok": o.ok, "seconds": round(o.seconds, 2)}
        for o in outcomes
    ]  # fmt: skip
    if output is not Format.TABLE:
        show(rows, output, rows)
    console.print(f"{len(outcomes) - len(wrong)} of {len(outcomes)} cases as expected")
    raise typer.Exit(1 if wrong else 0)


async def _until_stopped(work: Coroutine[Any, Any, list[Outcome]]) -> list[Outcome]:
    """A signal to end cancels it, as Ctrl-C does."""
    task = asyncio.ensure_future(work)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    return await task
