"""``uninstall``: Sidegate's overlay goes and plain Istio stays, unless istioctl is told what of
Istio is to go too (``--purge``, ``--revision``, ``--filename``)."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from istioctl_patch import examine, injector, overlay, tools
from istioctl_patch.call import Call
from istioctl_patch.cluster import Mesh
from istioctl_patch.names import MANAGED_BY

_REMEDY = (
    "These pods run with the module still, and what L7 rules select of them is closed; restart"
)


def uninstall(call: Call, err: Console) -> int:
    """istioctl's exit code where it is called, else 0; 1 if the user says no. Raises Missing,
    CalledProcessError."""
    mesh = Mesh(call.cluster, call.istio_namespace)
    told = {"purge", "revision", "filename"} & call.flags.keys() or "revision" in call.set_values
    if told and not call.has("purge"):
        # A revision takes its injector with it; our filters stay for the others.
        code = _istioctl(call)
        if code == 0 and not any(map(injector.carries, mesh.injectors())):
            _remove(call, [], err)
        return code
    carriers = [each for each in mesh.injectors() if injector.carries(each)]
    _say(carriers, call, err)
    if not (call.has("skip-confirmation") or call.has("dry-run") or _agreed()):
        err.print("Cancelled.")
        return 1
    _remove(call, carriers, err)
    if told:
        return _istioctl(call)
    pods = [pod["metadata"] for pod in mesh.pods() if examine.has_module(pod)]
    if pods and not call.has("dry-run"):
        names = ", ".join(f"{each['namespace']}/{each['name']}" for each in pods)
        err.print(f"{_REMEDY}: {names}", soft_wrap=True, highlight=False)
    return 0


def _say(carriers: Sequence[Mapping[str, Any]], call: Call, err: Console) -> None:
    err.print("Sidegate removes:")
    for each in carriers:
        err.print(f"  its templates from ConfigMap {each['metadata']['name']}", highlight=False)
    for each in _ours(call):
        err.print(f"  {each['kind']} {each['metadata']['name']}", highlight=False)
    left = "and istioctl what it is told" if call.has("purge") else "Istio stays as it is"
    err.print(f"{left}.")


def _ours(call: Call) -> list[dict[str, Any]]:
    """Last first: what guards the others must not stand in the way of their removal."""
    return overlay.resources(call.istio_namespace)[::-1]


def _remove(call: Call, carriers: Sequence[Mapping[str, Any]], err: Console) -> None:
    """Injectors first, so that no new pod asks for a module that nobody configures."""
    dry = ("--dry-run=server",) if call.has("dry-run") else ()
    for each in carriers:
        patch = json.dumps({"data": injector.without(each)})
        said = tools.kubectl(
            call.cluster, "patch", "configmap", each["metadata"]["name"],
            f"--namespace={call.istio_namespace}", "--type=merge", f"--patch={patch}", *dry,
        )  # fmt: skip
        sys.stdout.write(said)
    said = tools.kubectl(
        call.cluster, "delete", "--ignore-not-found", "-f", "-", *dry, objects=_ours(call)
    )
    sys.stdout.write(said)
    labels = ",".join(f"{key}={value}" for key, value in MANAGED_BY.items())
    said = tools.kubectl(  # what an older version of ours has left
        call.cluster, "delete", "envoyfilters.networking.istio.io", "-A", "-l", labels,
        "--ignore-not-found", *dry,
    )  # fmt: skip
    if "No resources found" not in said:
        sys.stdout.write(said)


def _agreed() -> bool:
    print("Proceed? (y/N) ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _istioctl(call: Call) -> int:
    sys.stdout.flush()
    return subprocess.run([call.istioctl, *call.arguments], check=False).returncode
