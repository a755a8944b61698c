"""``verify-install``: a table of what has to be there, or the same as JSON or YAML.

No istioctl that we support has a command of this name any more, so Istio's part is
looked at here as well.
"""

from __future__ import annotations

from dataclasses import asdict

from istioctl_patch import overlay, support, tools, verify
from istioctl_patch.call import Call
from istioctl_patch.cluster import Mesh
from sidegate_cli.output import Format, show


def verify_install(call: Call) -> int:
    """0 if all is well, else 1. Raises Missing, CalledProcessError, ValueError."""
    form = Format(call.flag("output", "table"))
    mesh = Mesh(call.cluster, call.istio_namespace)
    flags = (*call.cluster, f"--istioNamespace={call.istio_namespace}")
    versions = support.parse(tools.versions(call.istioctl, *flags))
    checks = [
        *verify.istio(versions, mesh.pilots()),
        *verify.injectors(mesh.injectors()),
        *verify.resources(overlay.resources(call.istio_namespace), mesh.ours()),
        *verify.node_drivers(mesh.csi_drivers(), mesh.nodes(), mesh.pods(), mesh.csi_nodes()),
    ]
    good = all(each.ok for each in checks)
    data = {"ok": good, "checks": [{**asdict(each), "ok": each.ok} for each in checks]}
    rows = [{"": "✔" if each.ok else "✘", **asdict(each)} for each in checks]
    show(data, form, rows)
    return 0 if good else 1
