"""Manifests named on the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from kube_store.directory import SUFFIXES
from kube_store.resource import Resource, SourceError
from kube_store.yaml_reader import read_yaml
from sidegate_cli.failure import Failure


def read_manifests(paths: Iterable[Path]) -> tuple[list[Resource], list[SourceError]]:
    """All objects of the files and directories; ``-`` is the standard input."""
    resources: list[Resource] = []
    errors: list[SourceError] = []
    for path in paths:
        for file in _files(path):
            found, wrong = read_yaml(*_text(file))
            resources += found
            errors += wrong
    return resources, errors


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.rglob("*") if file.name.endswith(SUFFIXES))


def _text(path: Path) -> tuple[str, str]:
    try:
        if str(path) == "-":
            return sys.stdin.read(), "stdin"
        return path.read_text("utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{path}: {error}; name a readable file of UTF-8 text") from None
