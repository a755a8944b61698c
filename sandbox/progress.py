"""What is shown while something takes its time."""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn


def progress(console: Console, text: str) -> Progress:
    """A spinner that goes with what it was for; a line where nobody watches."""
    made = Progress(SpinnerColumn(), TextColumn(text), console=console, transient=True)
    made.add_task(text)
    if not console.is_terminal:
        console.print(text)
    return made
