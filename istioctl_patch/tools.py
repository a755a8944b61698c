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


def versions(tool: str, *flags: str) -> dict[str, Any]:
    """What ``istioctl version`` says: ``flags`` name the cluster, or that it is not to be asked.
    Raises CalledProcessError."""
    said = subprocess.run(
        [tool, "version", "-o", "json", *flags], check=True, capture_output=True, text=True
    )
    found: dict[str, Any] = json.loads(said.stdout[said.stdout.index("{") :])
    return found


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


def listed(flags: Sequence[str], path: str) -> list[dict[str, Any]]:
    """The objects at a path of the API, none where it has no such kind. Raises
    CalledProcessError, Missing."""
    if not shutil.which("kubectl"):
        raise Missing("kubectl: not found: install it")
    done = subprocess.run(
        ["kubectl", *flags, "get", "--raw", path], check=False, capture_output=True, text=True
    )
    if done.returncode == 0:
        items: list[dict[str, Any]] = json.loads(done.stdout).get("items") or []
        return items
    if "NotFound" in done.stderr or "could not find the requested resource" in done.stderr:
        return []
    raise subprocess.CalledProcessError(done.returncode, done.args, done.stdout, done.stderr)
