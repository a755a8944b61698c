"""Changes of the path: of a request on its way to a backend, or in a redirect."""

from __future__ import annotations

import re
from typing import Any

from envoy.type.matcher.v3 import regex_pb2

from gateway_translator.ir import PathChange, PathMatch
from xds_server.gateway.names import regex


def change_path(target: Any, change: PathChange, match: PathMatch) -> None:
    """``target`` is a RouteAction or RedirectAction; both leave the query as it is.

    Envoy's own ``prefix_rewrite`` knows no path elements: it makes ``//x`` of ``/a/x`` where
    ``/a`` becomes ``/``, and ``/bx`` of ``/x`` where ``/`` becomes ``/b``.
    """
    if change.full is not None:
        _rewrite(target, "^/.*$", change.full)
        return
    replacement = (change.prefix or "").rstrip("/")
    if match.value != "/" and replacement:
        target.prefix_rewrite = replacement
        return
    prefix = re.escape(match.value.rstrip("/"))
    _rewrite(target, f"^{prefix}/*", f"{replacement}/")


def _rewrite(target: Any, pattern: str, replacement: str) -> None:
    target.regex_rewrite.CopyFrom(
        regex_pb2.RegexMatchAndSubstitute(
            pattern=regex(pattern), substitution=replacement.replace("\\", "\\\\")
        )
    )
