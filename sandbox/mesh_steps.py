"""The policy steps of the mesh's example: each is applied, tried, and told in a table of what pods
saw and of whom both ends took each other for."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from policy_engine.labels import NAMESPACE, SERVICE_ACCOUNT, parse_labels
from sandbox.cluster import kubectl
from sandbox.control_plane import Cluster
from sandbox.mesh_flows import Flow, Flows, following
from sandbox.mesh_probes import EXAMPLE, load, seen, whom
from sandbox.probes import Probe

_WIDE = 150  # columns that the whole table needs
_SAID_BY_US = ("403", "denied")


def run(console: Console, cluster: Cluster) -> int:
    """The number of probes that came out otherwise than expected. Raises CalledProcessError."""
    steps, failed = load(), 0
    addresses = _addresses(cluster)
    with following(cluster) as flows:
        for name, probes in steps.items():
            file = EXAMPLE / f"{name}.yaml"
            kubectl(cluster, "apply", "-f", str(file))
            table = _table(
                console, f"{name}  {file.read_text().partition(chr(10))[0].lstrip('# ')}"
            )
            for probe in probes:
                failed += not _try(table, cluster, probe, flows, addresses)
            console.print(table)
    total = sum(map(len, steps.values()))
    console.print(f"{total - failed} of {total} as expected")
    return failed


def _try(
    table: Table, cluster: Cluster, probe: Probe, flows: Flows,
    addresses: Mapping[str, Collection[str]],
) -> bool:  # fmt: skip
    """What we deny has to be told with both identities besides."""
    status, begin = seen(cluster, probe)
    verdict = "denied" if probe.expect in (*_SAID_BY_US, "none") else "forwarded"
    asked = whom(probe)
    flow = flows.decided((addresses[probe.who], addresses[asked]), verdict, begin)
    source, destination, why = _decision(flow)
    named = source.endswith(f"/{probe.who}") and destination.endswith(f"/{asked}")
    ok = status == probe.expect and (named or probe.expect not in _SAID_BY_US)
    shown = f"[green]{status}[/green]" if ok else f"[red]{status} ✘[/red]"
    if len(table.columns) > 4:
        table.add_row(probe.who, probe.what, probe.expect, shown, source, destination, why)
    else:
        told = f"{probe.what}\n  [dim]{source} -> {destination}\n  {why}[/dim]"
        table.add_row(probe.who, told, probe.expect, shown)
    return ok


def _table(console: Console, title: str) -> Table:
    """Where seven columns do not fit, who and why is said below what was asked."""
    names: tuple[str, ...] = ("who", "what", "expected", "seen")
    if console.width >= _WIDE:
        names = (*names, "source identity", "destination identity", "decided by")
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in names:
        table.add_column(name, overflow="fold")
    return table


def _decision(flow: Flow | None) -> tuple[str, str, str]:
    """Both identities and what decided. What Istio itself refuses is no flow of ours."""
    if flow is None:
        return "-", "-", "-"
    why = flow["rule"] or flow["reason"].replace("_", " ") or "no policy"
    return _identity(flow["source"]), _identity(flow["destination"]), f"{flow['layer']} {why}"


def _identity(peer: Flow) -> str:
    """Its number, with namespace and account: what its certificate has to name (SPIFFE)."""
    labels = parse_labels(tuple(peer["labels"]))
    account = f"{labels.get(NAMESPACE)}/{labels.get(SERVICE_ACCOUNT)}"
    return f"{peer['identity']} {account if NAMESPACE in labels else ' '.join(labels)}"


def _addresses(cluster: Cluster) -> dict[str, list[str]]:
    """Of the example's pods, by name."""
    items = json.loads(kubectl(cluster, "get", "pods", "-o", "json"))["items"]
    return {
        item["metadata"]["name"]: [each["ip"] for each in item["status"]["podIPs"]]
        for item in items
    }
