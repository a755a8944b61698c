"""The command line of the test."""

# ruff: noqa: PLC0415 - what a command needs is loaded when it runs, so that --help is quick

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sidegate_cli.failure import Failure
from sidegate_cli.options import Output, found_kubeconfig, group
from sidegate_cli.output import Format, show

if TYPE_CHECKING:
    from sidegate_cli.connectivity.runner import Outcome

app = group("Whether a cluster's traffic flows as its policies say.")


@app.command("test")
def run_test(
    kubeconfig: Annotated[
        Path | None, typer.Option(envvar="KUBECONFIG", dir_okay=False, exists=True)
    ] = None,
    namespace: Annotated[str, typer.Option(help="Made for the test.")] = "sidegate-test",
    keep: Annotated[bool, typer.Option("--keep", help="Leave the pods running.")] = False,
    image: Annotated[str, typer.Option(help="With http and kcat.")] = "sidegate/connectivity",
    kafka_image: Annotated[str, typer.Option(help="Of the broker.")] = "apache/kafka:4.1.0",
    output: Output = Format.TABLE,
) -> None:
    """Deploy clients and servers, try what policies allow and deny, and clean up."""
    from rich.console import Console

    from kube_store.kube_client import CONNECTION_ERRORS, KubeError
    from sidegate_cli.connectivity.cluster import NotReady
    from sidegate_cli.connectivity.objects import Images
    from sidegate_cli.connectivity.runner import run

    console = Console(highlight=False, stderr=output is not Format.TABLE)

    def tell(outcome: Outcome) -> None:
        mark = "[green]✔[/]" if outcome.ok else "[red]✘[/]"
        wrong = "" if outcome.ok else f"  [red]saw {outcome.seen}[/]"
        console.print(f"  {mark} {outcome.case} [dim]({outcome.pod})[/]: {outcome.expected}{wrong}")

    try:
        images = Images(image, kafka_image)
        outcomes = asyncio.run(
            run(
                found_kubeconfig(kubeconfig),
                namespace,
                images,
                keep,
                tell,
                lambda text: console.print(text),
            )
        )
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
