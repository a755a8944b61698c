"""``sidegate``: the command line. Exit codes: 0 done; 1 refused, or found wrong or denied; 2 wrong
usage; 3 no agent to ask, or a part of the program is missing."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer

from sidegate_cli import (
    cluster,
    gateway,
    inspect,
    observe,
    policy,
    resources,
    run,
    trace,
    translate,
)
from sidegate_cli.connectivity import command as connectivity
from sidegate_cli.failure import Failure

app = typer.Typer(
    name="sidegate",
    help="Sidecar-aware L7 policy: eBPF redirect, a stock Envoy, one policy everywhere.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for command in (resources.apply, resources.delete, resources.get, inspect.status):
    app.command()(command)
app.command()(cluster.install)
app.command()(cluster.upgrade)
app.command()(cluster.uninstall)
app.add_typer(policy.app, name="policy")
app.command("translate")(translate.translate)
app.command("observe")(observe.observe)
app.add_typer(inspect.endpoint, name="endpoint")
app.add_typer(inspect.identity, name="identity")
app.add_typer(inspect.bpf_map, name="map")
app.add_typer(inspect.envoy, name="envoy")
app.add_typer(inspect.istio, name="istio")
app.add_typer(gateway.app, name="gateway")
app.add_typer(run.sandbox, name="sandbox")
app.command("agent")(run.agent)
app.command("proxy")(run.proxy)
app.add_typer(trace.trace, name="trace")
app.add_typer(connectivity.app, name="connectivity")
app.command()(inspect.version)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs one command, the process's own arguments unless given; always ends in SystemExit."""
    try:
        app(arguments, prog_name="sidegate")
    except Failure as failure:
        print(f"sidegate: {failure}", file=sys.stderr)
        sys.exit(failure.code)
    sys.exit(0)


if __name__ == "__main__":
    main()
