"""``sidegate-istioctl``: some commands of istioctl do a little more, the rest is istioctl."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from istioctl_patch import names, overlay, support, tools

_ERR = Console(stderr=True)
_CLUSTER_FLAGS = {"--kubeconfig": "--kubeconfig", "-c": "--kubeconfig", "--context": "--context"}
_CRD_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Call:
    """``arguments`` are istioctl's; ``cluster`` the flags by which kubectl finds the same one."""

    istioctl: str
    arguments: tuple[str, ...]
    stock_envoy: bool
    cluster: tuple[str, ...]

    @property
    def command(self) -> tuple[str, ...]:
        return tuple(each for each in self.arguments if not each.startswith("-"))[:2]


def parse(arguments: Sequence[str]) -> Call:
    """Takes our own flags out: ``--istioctl PATH``, ``--stock-envoy``. Raises Missing."""
    rest, given, stock, cluster = list(arguments), "", False, []
    kept: list[str] = []
    while rest:
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name == "--istioctl":
            given = value if equals else rest.pop(0) if rest else ""
        elif word == "--stock-envoy":
            stock = True
        else:
            kept.append(word)
            if name in _CLUSTER_FLAGS:
                value = value if equals else rest[0] if rest else ""
                cluster.append(f"{_CLUSTER_FLAGS[name]}={value}")
    return Call(tools.istioctl(given), tuple(kept), stock, tuple(cluster))


def main() -> None:
    """The exit code is istioctl's, or 2 where nothing was done."""
    try:
        call = parse(sys.argv[1:])
        match call.command:
            case ("install" | "upgrade", *_):
                sys.exit(_install(call))
            case ("manifest", "generate"):
                sys.exit(_generate(call))
            case ("uninstall", *_):
                sys.exit(_uninstall(call))
        os.execv(call.istioctl, [call.istioctl, *call.arguments])
    except (support.Unsupported, tools.Missing) as error:
        _ERR.print(f"[red]error[/red]: {error}", soft_wrap=True, highlight=False)
        sys.exit(2)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)


def _install(call: Call) -> int:
    support.check(tools.version(call.istioctl))
    _say_what_is_added()
    code = _with_overlay(call, call.command[0])
    if code or "--dry-run" in call.arguments:
        return code
    tools.kubectl(
        call.cluster, "wait", "--for=condition=Established", f"--timeout={_CRD_SECONDS}s",
        "crd/envoyfilters.networking.istio.io",
    )  # fmt: skip
    said = tools.kubectl(call.cluster, "apply", "-f", "-", objects=overlay.resources())
    sys.stdout.write(said)
    return 0


def _generate(call: Call) -> int:
    support.check(tools.version(call.istioctl))
    code = _with_overlay(call, "generate")
    if code == 0:
        sys.stdout.write("---\n" + yaml.safe_dump_all(overlay.resources(), sort_keys=False))
    return code


def _uninstall(call: Call) -> int:
    """Our filters first: what is left of Istio meanwhile is plain Istio."""
    kinds = "envoyfilters.networking.istio.io"
    labels = ",".join(f"{key}={value}" for key, value in names.MANAGED_BY.items())
    sys.stdout.write(
        tools.kubectl(call.cluster, "delete", kinds, "-A", "-l", labels, "--ignore-not-found")
    )
    return subprocess.run([call.istioctl, *call.arguments], check=False).returncode


def _with_overlay(call: Call, command: str) -> int:
    """istioctl as it was called, with our values before the user's: theirs win."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "sidegate.yaml"
        values = overlay.operator(stock_envoy=call.stock_envoy)
        path.write_text(yaml.safe_dump(values, sort_keys=False))
        after = call.arguments.index(command) + 1
        arguments = [*call.arguments[:after], "-f", str(path), *call.arguments[after:]]
        sys.stdout.flush()
        return subprocess.run([call.istioctl, *arguments], check=False).returncode


def _say_what_is_added() -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("Sidegate adds", no_wrap=True)
    table.add_column("where", no_wrap=True)
    table.add_column("what for")
    table.add_row("injection template sidegate", "istio-sidecar-injector",
                  "istio-proxy gets the module and the agent's sockets")  # fmt: skip
    for each in overlay.resources():
        metadata = each["metadata"]
        table.add_row(f"{each['kind']} {metadata['name']}", metadata["namespace"],
                      "policy is enforced in every sidecar")  # fmt: skip
    _ERR.print(table)


if __name__ == "__main__":
    main()
