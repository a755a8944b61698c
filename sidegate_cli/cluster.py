"""install, upgrade, uninstall: the chart that ships with this program, by the user's own helm."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from sidegate_cli.failure import Failure

CHART = Path(__file__).parent.parent / "charts" / "sidegate"
RELEASE = "sidegate"

Values = Annotated[
    list[Path] | None,
    typer.Option("--values", "-f", help="YAML file of values; may be repeated.", dir_okay=False),
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A value, as key=value; may be repeated.")
]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Where agent and operator run.")]
Kubeconfig = Annotated[
    Path | None, typer.Option(help="None: as kubectl finds the cluster.", dir_okay=False)
]
Wait = Annotated[bool, typer.Option("--wait", help="Until it is done on every node.")]
Seconds = Annotated[int, typer.Option("--timeout", min=1, help="Seconds, with --wait.")]
Helm = Annotated[str, typer.Option(help="The helm program, version 3.14 or later.")]

_NAMESPACE = "sidegate-system"
_SECONDS = 300


def install(
    values: Values = None,
    settings: Settings = None,
    namespace: Namespace = _NAMESPACE,
    kubeconfig: Kubeconfig = None,
    wait: Wait = False,
    timeout: Seconds = _SECONDS,
    helm: Helm = "helm",
) -> None:
    """Put agent and operator into a cluster."""
    arguments = ["install", RELEASE, str(CHART), "--create-namespace", *_given(values, settings)]
    _run(helm, arguments, namespace, kubeconfig, wait, timeout)


def upgrade(
    values: Values = None,
    settings: Settings = None,
    namespace: Namespace = _NAMESPACE,
    kubeconfig: Kubeconfig = None,
    wait: Wait = False,
    timeout: Seconds = _SECONDS,
    helm: Helm = "helm",
) -> None:
    """Bring a cluster to this version; values that were given before hold on."""
    arguments = ["upgrade", RELEASE, str(CHART), "--reset-then-reuse-values"]
    _run(helm, [*arguments, *_given(values, settings)], namespace, kubeconfig, wait, timeout)


def uninstall(
    namespace: Namespace = _NAMESPACE,
    kubeconfig: Kubeconfig = None,
    wait: Wait = False,
    timeout: Seconds = _SECONDS,
    helm: Helm = "helm",
) -> None:
    """Take it off every node. The CRDs stay, and so do the policies."""
    _run(helm, ["uninstall", RELEASE], namespace, kubeconfig, wait, timeout)


def _given(values: list[Path] | None, settings: list[str] | None) -> list[str]:
    files = [f"--values={path}" for path in values or []]
    return files + [f"--set={setting}" for setting in settings or []]


def _run(
    helm: str,
    arguments: list[str],
    namespace: str,
    kubeconfig: Path | None,
    wait: bool,
    timeout: int,
) -> None:
    program = shutil.which(helm)
    if program is None:
        raise Failure(
            f"{arguments[0]}: there is no {helm!r} program; install helm 3, or say --helm PATH", 3
        )
    if not CHART.is_dir():
        raise Failure(f"{arguments[0]}: the chart is missing: {CHART}", 3)
    command = [program, *arguments, f"--namespace={namespace}", f"--timeout={timeout}s"]
    if kubeconfig:
        command.append(f"--kubeconfig={kubeconfig}")
    if wait:
        command.append("--wait")
    # Its own words on our streams; what it refuses, it explains.
    if subprocess.run(command, check=False).returncode:
        raise Failure(f"{arguments[0]}: helm did not succeed")
