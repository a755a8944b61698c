"""``make bench``: measures, prints, and writes ``bench/results/latest.json``.

``make bench BENCH_ARGS=mesh`` measures the cases of that name or whose names begin so, and leaves
the other figures as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench import cases, cluster, cni, services
from bench.figures import Figure, write
from bench.gateway import by_hand, changes, endpoints, routes
from bench.mesh import change, rig, sidecar, streams, traffic

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
    "gateway-changes": changes.failures,
    "gateway-routes-1000": routes.thousand,
    "gateway-routes-3000": routes.three_thousand,
    "gateway-endpoints": endpoints.changes,
    "gateway-throughput": by_hand.throughput,
    "mesh-streams": streams.fan_out,
}
# These share one mesh, which takes longer to come up than most of them.
IN_MESH: dict[str, Callable[[rig.Mesh], Sequence[Figure]]] = {
    "mesh-throughput": traffic.throughput,
    "mesh-rules": traffic.rules,
    "mesh-latency": change.latency,
    "mesh-idle": change.idle,
    "mesh-sidecar": sidecar.idle,
}


def chosen(asked: Sequence[str]) -> list[str]:
    """Names of cases, in their order; all for none. Raises ValueError for what fits none."""
    names = [*ALL, *IN_MESH]
    fitting = {ask: [n for n in names if n == ask or n.startswith(f"{ask}-")] for ask in asked}
    for ask, found in fitting.items():
        if not found:
            raise ValueError(f"no case {ask!r}: there are {', '.join(names)}")
    wanted = {name for found in fitting.values() for name in found}
    return [name for name in names if not asked or name in wanted]


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("case", nargs="*", help="all by default; 'mesh' is all of the mesh")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        names = chosen(options.case)
    except ValueError as error:
        parser.error(str(error))
    figures = _measure(names, console)
    table = Table("figure", "value", "spread", "rounds", "against", "bar", "met")
    for each in figures:
        spread = f"{each.spread[0]:g} .. {each.spread[1]:g}"
        met = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[each.met]
        value = f"{each.value:g} {each.unit}"
        table.add_row(each.name, value, spread, str(each.rounds), each.against, each.bar, met)
    console.print(table)
    write(figures, RESULTS, keep=bool(options.case))
    console.print(f"written to {RESULTS.relative_to(Path.cwd())}")
    return 0


def _measure(names: Sequence[str], console: Console) -> list[Figure]:
    figures: list[Figure] = []
    for name in (name for name in names if name in ALL):
        console.print(f"measuring {name}")
        figures += ALL[name]()
    in_mesh = [name for name in names if name in IN_MESH]
    if in_mesh:
        with rig.running() as mesh:
            for name in in_mesh:
                console.print(f"measuring {name}")
                figures += IN_MESH[name](mesh)
    return figures


if __name__ == "__main__":
    sys.exit(main())
