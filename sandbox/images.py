"""The images that the sandbox knows, as local commands: ``python -m sandbox.images build``."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parent.parent
_PEER_SOURCE = _ROOT / "tests" / "peers" / "http"
_PYTHON = _ROOT / ".venv" / "bin" / "python"


class UnknownImage(ValueError):
    """No command is known for the image, and the container gives none."""


def cache_dir() -> Path:
    """Where builds are kept between checkouts."""
    return Path(os.environ.get("SIDEGATE_CACHE") or Path.home() / ".cache" / "sidegate")


def http_peer() -> Path:
    """The Go peer's binary for this very source."""
    digest = hashlib.sha256()
    for path in sorted(_PEER_SOURCE.glob("*.go")) + sorted(_PEER_SOURCE.glob("go.*")):
        digest.update(path.name.encode() + path.read_bytes())
    return cache_dir() / "bin" / f"http-peer-{digest.hexdigest()[:16]}"


def command(image: str, arguments: tuple[str, ...], has_command: bool) -> tuple[str, ...]:
    """What to run for an image; its arguments follow. Raises UnknownImage."""
    if has_command:
        return arguments
    name = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    match image.partition("/")[0], name:
        case "sidegate.test", "http":
            return (str(http_peer()), "serve", "--http", ":8080", *arguments)
        case "sidegate.test", "client":
            return ("sleep", "infinity")
        case _, "kafka":
            return (str(_PYTHON), "-m", "sandbox.kafka_broker", "serve", *arguments)
    raise UnknownImage(f"{image!r} is not known here; give the container a command")


def build() -> None:
    """Build what the images need, unless it is there. Raises CalledProcessError."""
    target = http_peer()
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        build_to = target.with_suffix(".new")
        subprocess.run(["go", "build", "-o", str(build_to), "."], cwd=_PEER_SOURCE, check=True)
        build_to.rename(target)


if __name__ == "__main__":
    if sys.argv[1:] != ["build"]:
        sys.exit("usage: python -m sandbox.images build")
    build()
