"""Which versions of Istio fit, and why others do not."""

from __future__ import annotations

import re

# Istio's own proxy has dynamic modules among its extensions from this release on.
FIRST = (1, 31)


class Unsupported(ValueError):
    """The message says which version it is, and what to do."""


def check(version: str) -> None:
    """``version`` as istioctl prints it ("1.31.2", "1.32-alpha.0123"). Raises Unsupported."""
    found = re.match(r"(\d+)\.(\d+)", version)
    if not found:
        raise Unsupported(f"istioctl says that its version is {version!r}: use a released one")
    if (int(found[1]), int(found[2])) < FIRST:
        first = ".".join(map(str, FIRST))
        raise Unsupported(
            f"Istio {version}: its proxy cannot load dynamic modules, which it can from {first} "
            f"on: upgrade the mesh to {first} or later"
        )
