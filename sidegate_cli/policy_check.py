"""``policy check``: the parser and the module's own regular expressions, without an agent."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kube_store.resource import ResourceKey
from policy_engine.errors import FieldError, RegexError
from policy_engine.kinds import KINDS
from policy_engine.parse import parse_policy
from sidegate_cli.failure import Failure
from sidegate_cli.manifests import read_manifests


def check_files(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """One item per object or broken document, with ``valid`` and ``errors``.

    Objects that are no policies are valid if they can be read.
    """
    regex_error = _regex_error()
    resources, broken = read_manifests(paths)
    items = []
    first: dict[ResourceKey, str] = {}
    for resource in resources:
        errors: list[FieldError] = []
        if resource.key.kind in KINDS:
            errors += parse_policy(resource.manifest, regex_error)[1]
        if resource.key in first:
            message = f"{first[resource.key]} has an object of this name"
            errors.append(FieldError("metadata.name", message, "rename or remove one of the two"))
        first.setdefault(resource.key, resource.origin)
        items.append(_item(resource.origin, str(resource.key), errors))
    for error in broken:
        wrong = FieldError(error.field, error.message, error.remedy)
        items.append(_item(f"{error.source}:{error.line}", error.object, [wrong]))
    return items


def _item(source: str, name: str, errors: list[FieldError]) -> dict[str, Any]:
    return {
        "source": source,
        "object": name,
        "valid": not errors,
        "errors": [asdict(error) for error in errors],
    }


def _regex_error() -> RegexError:
    try:
        rules = importlib.import_module("l7_proxy_ext._rules")
    except ImportError as error:
        raise Failure(
            f"the module's rules are not built ({error}), so patterns cannot be checked; "
            "run `make build`",
            3,
        ) from None
    regex_error: RegexError = rules.regex_error
    return regex_error
