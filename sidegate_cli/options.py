"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sidegate_cli.output import Format

Output = Annotated[Format, typer.Option("--output", "-o", help="Form of the output.")]
Node = Annotated[str, typer.Option(envvar="SIDEGATE_NODE", help="Node whose agent is asked.")]
Files = Annotated[
    list[Path], typer.Option("--filename", "-f", help="YAML file or directory, or - for stdin.")
]


def group(text: str) -> typer.Typer:
    """A command group in the one style of this program."""
    return typer.Typer(help=text, no_args_is_help=True, rich_markup_mode=None)
