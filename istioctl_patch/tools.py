"""The user's own istioctl and kubectl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any

import yaml


class Missing(OSError):
    """A tool that is not there; the message says what to do."""


def istioctl(given: str = "") -> str:
    """As told, else ``SIDEGATE_ISTIOCTL``, else on the path. Raises Missing."""
    wanted = given or os.environ.get("SIDEGATE_ISTIOCTL") or "istioctl"
    found = shutil.which(wanted)
    if not found:
        raise Missing(f"{wanted}: not found: install istioctl, or name it with --istioctl PATH")
    return found


def version(tool: str) -> str:
    """Raises CalledProcessError."""
    said = subprocess.run(
        [tool, "version", "--remote=false", "-o", "json"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return str(json.loads(said.stdout)["clientVersion"]["version"])


def kubectl(flags: Sequence[str], *arguments: str, objects: Iterable[Any] = ()) -> str:
    """What it says; ``objects`` go to its standard input. ``flags`` name the cluster. Raises
    CalledProcessError, Missing."""
    if not shutil.which("kubectl"):
        raise Missing("kubectl: not found: install it")
    text = yaml.safe_dump_all(objects, sort_keys=False)
    done = subprocess.run(
        ["kubectl", *flags, *arguments], check=True, input=text, stdout=subprocess.PIPE, text=True
    )
    return done.stdout
