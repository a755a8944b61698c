"""``install``, ``upgrade``, ``manifest generate``: istioctl with our overlay."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from rich.console import Console
from rich.table import Table

from istioctl_patch import overlay, support, tools
from istioctl_patch.call import Call

_CRD_SECONDS = 60


def install(call: Call, err: Console) -> int:
    """istioctl's exit code. Raises Unsupported, Missing, CalledProcessError."""
    _check(call)
    for remark in support.remarks(_versions(call)):
        err.print(f"[yellow]note[/yellow]: {remark}", soft_wrap=True, highlight=False)
    _say_what_is_added(call, err)
    code = _with_overlay(call, call.words[0])
    if code or call.has("dry-run"):
        return code
    tools.kubectl(
        call.cluster, "wait", "--for=condition=Established", f"--timeout={_CRD_SECONDS}s",
        "crd/envoyfilters.networking.istio.io",
    )  # fmt: skip
    objects = overlay.resources(call.istio_namespace)
    sys.stdout.write(tools.kubectl(call.cluster, "apply", "-f", "-", objects=objects))
    return 0


def generate(call: Call, err: Console) -> int:
    """istioctl's exit code. Raises Unsupported, Missing, CalledProcessError."""
    _check(call)
    _say_what_is_added(call, err)
    code = _with_overlay(call, "generate")
    if code == 0:
        objects = overlay.resources(call.istio_namespace)
        sys.stdout.write("---\n" + yaml.safe_dump_all(objects, sort_keys=False))
    return code


def _check(call: Call) -> None:
    """What istioctl would install: its own version, or the one that it is told."""
    support.check(support.parse(tools.versions(call.istioctl, "--remote=false")).client)
    told = call.set_values
    for path in ("tag", "values.global.tag"):
        if told.get(path, "")[:1].isdigit():
            support.check(told[path])


def _versions(call: Call) -> support.Versions:
    """Of the mesh that is there; of istioctl alone where there is none yet."""
    try:
        flags = (*call.cluster, f"--istioNamespace={call.istio_namespace}")
        return support.parse(tools.versions(call.istioctl, *flags))
    except (subprocess.CalledProcessError, ValueError):
        return support.Versions("", {}, {})


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


def _say_what_is_added(call: Call, err: Console) -> None:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("Sidegate adds", no_wrap=True)
    table.add_column("where", no_wrap=True)
    table.add_column("what for")
    values = overlay.operator()["spec"]["values"]["sidecarInjectorWebhook"]
    default = values["defaultTemplates"]
    for name in values["templates"]:
        asked = "every injected pod" if name in default else "pods that ask for it"
        what = f"the module and the agent's sockets, for istio-proxy of {asked}"
        table.add_row(f"injection template {name}", "istio-sidecar-injector", what)
    for each in overlay.resources(call.istio_namespace):
        metadata = each["metadata"]
        what = (metadata.get("annotations") or {}).get("policy.sidegate.io/purpose", "")
        table.add_row(f"{each['kind']} {metadata['name']}", metadata.get("namespace", "cluster"),
                      what or "policy is enforced in every sidecar")  # fmt: skip
    err.print(table)
