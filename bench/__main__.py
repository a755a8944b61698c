"""``make bench``: measures, prints, and writes ``bench/results/latest.json``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import cases, cluster, cni, services
from bench.figures import Figure, write

RESULTS = Path(__file__).parent / "results" / "latest.json"
ALL: dict[str, Callable[[], Sequence[Figure]]] = {
    "throughput": cases.throughput,
    "change": cases.change,
    "cost": cases.cost_of_a_change,
    "datapath": cases.datapath,
    "intake": cases.intake,
    "scale": cluster.scale,
    "services": services.connections,
    "cni": cni.add,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--only", choices=ALL, action="append")
    options = parser.parse_args()
    figures: list[Figure] = []
    console = Console(width=None if sys.stdout.isatty() else 140)
    for name in options.only or ALL:
        console.print(f"measuring {name}")
        figures += ALL[name]()
    table = Table("figure", "value", "spread", "rounds", "against", "bar", "met")
    for each in figures:
        spread = f"{each.spread[0]:g} .. {each.spread[1]:g}"
        met = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[each.met]
        value = f"{each.value:g} {each.unit}"
        table.add_row(each.name, value, spread, str(each.rounds), each.against, each.bar, met)
    console.print(table)
    if not options.only:
        write(figures, RESULTS)
        console.print(f"written to {RESULTS.relative_to(Path.cwd())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
