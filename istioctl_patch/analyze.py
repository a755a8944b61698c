"""``analyze``: istioctl's own, and what we find besides, in one form and with one exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import yaml

from istioctl_patch import examine, findings, support, tools
from istioctl_patch.call import Call
from istioctl_patch.cluster import Mesh
from istioctl_patch.findings import CODES, Finding, Level
from istioctl_patch.selected import selected

FOUND = 79
"""istioctl's exit code for "analyze found issues"."""


def analyze(call: Call) -> int:
    """istioctl's exit code; :data:`FOUND` where it is content and we are not. As with istioctl,
    only its log format has that code. Raises Missing, CalledProcessError, ValueError."""
    form = call.flag("output", "log").lower()
    command = [call.istioctl, *call.arguments]
    asks_cluster = "use-kube" not in call.flags or call.has("use-kube")
    if call.has("list-analyzers") or call.has("L") or not asks_cluster:
        return subprocess.run(command, check=False).returncode
    if form not in ("json", "yaml"):
        code = subprocess.run(command, check=False).returncode
        return code or _print_lines(call)
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.stdout.write(done.stdout)
        return done.returncode
    messages = (json.loads if form == "json" else yaml.safe_load)(done.stdout) or []
    messages += [each.data() for each in _shown(call, list(_found(call)))]
    if form == "json":
        print(json.dumps(messages, indent="\t"))
    else:
        sys.stdout.write(yaml.safe_dump(messages, sort_keys=False))
    return 0


def _print_lines(call: Call) -> int:
    found = list(_found(call))
    sys.stdout.flush()
    for each in _shown(call, found):
        print(each.line())
    limit = Level.of(call.flag("failure-threshold", "Error"))
    failed = [each for each in found if each.level >= limit]
    if failed:
        codes = sorted({each.code for each in failed})
        meanings = "; ".join(f"{code}: {CODES[code]}" for code in codes)
        print(f"Error: Sidegate found issues ({meanings}).", file=sys.stderr)
    return FOUND if failed else 0


def _shown(call: Call, found: list[Finding]) -> list[Finding]:
    limit = Level.of(call.flag("output-threshold", "Info"))
    return [each for each in found if each.level >= limit]


def _found(call: Call) -> Iterator[Finding]:
    namespace = "" if call.has("all-namespaces") else _namespace(call)
    return findings.kept(_examined(call), namespace, call.flags.get("suppress", []))


def _examined(call: Call) -> Iterator[Finding]:
    mesh = Mesh(call.cluster, call.istio_namespace)
    flags = (*call.cluster, f"--istioNamespace={call.istio_namespace}")
    pods = list(selected(mesh.pods(), mesh.namespaces(), mesh.policies))
    yield from examine.versions(support.parse(tools.versions(call.istioctl, *flags)))
    yield from examine.revisions(mesh.injectors(), mesh.namespaces())
    yield from examine.foreign_filters(mesh.envoy_filters())
    yield from examine.without_module(pods)
    yield from examine.not_intercepted(pods)
    yield from examine.contradictions(pods, mesh.peer_authentications(), call.istio_namespace)
    yield from examine.ambient(pods, mesh.namespaces())


def _namespace(call: Call) -> str:
    """As istioctl: told, else of the context, else default."""
    if told := call.flag("namespace"):
        return told
    view = ("config", "view", "--minify", "--output=jsonpath={..namespace}")
    return tools.kubectl(call.cluster, *view).strip() or "default"
