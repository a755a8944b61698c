"""Which versions of Istio fit, and why others do not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

FIRST = (1, 31)
"""Istio's own proxy has dynamic modules among its extensions from this release on."""
TESTED = (1, 31)
"""The newest that our tests run with."""


class Unsupported(ValueError):
    """The message says which version it is, and what to do."""


@dataclass(frozen=True, slots=True)
class Versions:
    """``pilots`` by revision; ``proxies`` by "pod.namespace"."""

    client: str
    pilots: Mapping[str, str]
    proxies: Mapping[str, str]


def parse(said: Mapping[str, Any]) -> Versions:
    """What ``istioctl version -o json`` says."""
    return Versions(
        str((said.get("clientVersion") or {}).get("version", "")),
        {
            str(each.get("Revision", "default")): str((each.get("Info") or {}).get("version", ""))
            for each in said.get("meshVersion") or []
        },
        {str(e.get("ID")): str(e.get("IstioVersion")) for e in said.get("dataPlaneVersion") or []},
    )


def check(version: str, what: str = "Istio") -> None:
    """``version`` as istioctl prints it ("1.31.2", "1.32-alpha.0123"). Raises Unsupported."""
    release = _release(version)
    if release is None:
        raise Unsupported(f"{what} says that its version is {version!r}: use a released one")
    if release < FIRST:
        first = _text(FIRST)
        raise Unsupported(
            f"{what} {version}: its proxy cannot load dynamic modules, which it can from {first} "
            f"on: upgrade the mesh to {first} or later"
        )


def remarks(versions: Versions) -> Iterable[str]:
    """What is no reason to refuse, but has to be known."""
    if (release := _release(versions.client)) and release > TESTED:
        yield f"Istio {versions.client} is newer than {_text(TESTED)}, the newest that was tested"
    for revision, version in versions.pilots.items():
        if not fits(version):
            yield (
                f"revision {revision} is Istio {version}: what it injects has no module, and is "
                "left alone"
            )
    old = [name for name, version in versions.proxies.items() if not fits(version)]
    if old:
        shown = ", ".join(old[:5]) + (f" and {len(old) - 5} more" if old[5:] else "")
        yield f"older proxies than {_text(FIRST)} are left alone until they are restarted: {shown}"


def fits(version: str) -> bool:
    release = _release(version)
    return release is not None and release >= FIRST


def _release(version: str) -> tuple[int, int] | None:
    found = re.match(r"(\d+)\.(\d+)", version)
    return (int(found[1]), int(found[2])) if found else None


def _text(release: tuple[int, int]) -> str:
    return ".".join(map(str, release))
