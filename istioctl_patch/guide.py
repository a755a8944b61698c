"""Help and shell completion: istioctl's own, and ours beside it.

Source: cobra's ``completion`` and ``__complete`` (lines of value, tab, description; then
``:directive``).
"""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import version

from istioctl_patch.call import Call

_NAME = "sidegate-istioctl"
_DONE = {
    "install": "Applies Istio with Sidegate's overlay: injection templates and filters.",
    "upgrade": "The same for a mesh that is there.",
    "manifest generate": "Shows all of it as YAML.",
    "analyze": "Reports what Sidegate finds as well (SG0101 and on; docs/istio.md).",
    "uninstall": "Without --purge, --revision or --filename: removes Sidegate alone, Istio stays.",
    "verify-install": "Checks istiod, the overlay and the nodes' agents; exit code 1 if not well.",
}
_FLAGS = {
    "--istioctl PATH": "the istioctl to use; else SIDEGATE_ISTIOCTL, else the one on the path",
    "--stock-envoy": "the proxies are plain Envoys instead of Istio's",
}
_VERIFY = f"""\
Checks istiod of each revision, Sidegate's injection templates and resources, the CSI driver, and
the agent of each node.

Usage:
  {_NAME} verify-install [flags]

Flags:
  -i, --istioNamespace string   Istio system namespace (default "istio-system")
  -o, --output string           table, json or yaml (default "table")
      --context, --kubeconfig, --as, --as-group, --as-uid   as in istioctl
"""


def show_help(call: Call) -> int:
    """istioctl's exit code."""
    if "verify-install" in call.words:
        print(_VERIFY, end="")
        return 0
    code = _istioctl(call)
    if code == 0:
        print(f"\n{_NAME} is istioctl, and Sidegate adds:")
        _columns(_DONE)
        print("\nFlags of Sidegate:")
        _columns(_FLAGS)
    return code


def show_version(call: Call) -> int:
    """istioctl's answer as it is; ours goes beside it, where programs do not read."""
    code = _istioctl(call)
    if not call.has("output"):
        print(f"sidegate version: {version('sidegate')}", file=sys.stderr)
    return code


def completion(call: Call) -> int:
    """istioctl's script under our name. Its functions call whatever command is being completed."""
    done = _captured(call)
    sys.stdout.write(re.sub(r"(?<![\w-])istioctl(?![\w-])", _NAME, done.stdout))
    return done.returncode


def complete(call: Call) -> int:
    """What the shell asks for at a tab: our command is one of the first words."""
    done = _captured(call)
    said = done.stdout
    if call.words[1:] and len(call.arguments) == 2 and "verify-install".startswith(call.words[1]):
        said = f"verify-install\t{_DONE['verify-install']}\n{said}"
    sys.stdout.write(said)
    return done.returncode


def _captured(call: Call) -> subprocess.CompletedProcess[str]:
    command = [call.istioctl, *call.arguments]
    return subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)


def _istioctl(call: Call) -> int:
    sys.stdout.flush()
    code = subprocess.run([call.istioctl, *call.arguments], check=False).returncode
    sys.stdout.flush()
    return code


def _columns(rows: dict[str, str]) -> None:
    width = max(map(len, rows)) + 3
    for name, text in rows.items():
        print(f"  {name:<{width}}{text}")
