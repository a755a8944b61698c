"""The module's library in a sidecar's volume: each build under a name of its own, never changed.

Whoever has a library mapped keeps it whatever comes after. ``libsidegate.so``, which the mesh's
EnvoyFilters name, is a link to the one that a proxy loads when it starts (docs/adr/0015).
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

LINK = "libsidegate.so"


def place(directory: Path, library: Path) -> None:
    """Raises OSError. What is there under the name already, but is not what the name says, is
    replaced as a file: those who have it mapped keep theirs."""
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    content = library.read_bytes()
    digest = hashlib.sha256(content).digest()
    named = directory / f"libsidegate-{digest.hex()[:16]}.so"
    if not named.exists() or hashlib.sha256(named.read_bytes()).digest() != digest:
        fresh = directory / f".{named.name}"
        fresh.write_bytes(content)
        fresh.chmod(0o644)
        fresh.rename(named)
    link = directory / f".{LINK}"
    link.unlink(missing_ok=True)
    link.symlink_to(named.name)
    os.replace(link, directory / LINK)
