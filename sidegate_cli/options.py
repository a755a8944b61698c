"""Options that several commands share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from sidegate_cli.output import Format

Output = Annotated[Format, typer.Option("--output", "-o", help="Form of the output.")]
Node = Annotated[str, typer.Option(envvar="SIDEGATE_NODE", help="Node whose agent is asked.")]
Files = Annotated[
    list[Path], typer.Option("--filename", "-f", help="YAML file or directory, or - for stdin.")
]


def found_kubeconfig(given: Path | None) -> Path | None:
    """As kubectl finds it; None in a pod, whose account is used."""
    if given or os.environ.get("KUBERNETES_SERVICE_HOST"):
        return given
    return Path.home() / ".kube" / "config"


def group(text: str) -> typer.Typer:
    """A command group in the one style of this program."""
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None)
