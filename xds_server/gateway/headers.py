"""Changes of headers, which Envoy keeps with routes, weighted clusters and mirrors alike."""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import base_pb2

from gateway_translator.ir import HeaderChanges

_HOST = "host"
_SET = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_ADD = base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD


def change_request(target: Any, changes: HeaderChanges) -> None:
    """``target`` has Envoy's fields for it; it removes before it adds.

    Not the Host: that Envoy takes as a rewrite (:func:`host_of`).
    """
    target.request_headers_to_add.extend(_options(changes))
    target.request_headers_to_remove.extend(n for n in changes.remove if n != _HOST)


def change_response(target: Any, changes: HeaderChanges) -> None:
    target.response_headers_to_add.extend(_options(changes))
    target.response_headers_to_remove.extend(changes.remove)


def host_of(changes: HeaderChanges) -> str:
    """The Host that a request is given by a change of its headers; empty: it stays."""
    return next((value for name, value in changes.set if name == _HOST), "")


def _options(changes: HeaderChanges) -> list[Any]:
    return [
        base_pb2.HeaderValueOption(
            # "%" begins a variable in Envoy's format strings.
            header=base_pb2.HeaderValue(key=name, value=value.replace("%", "%%")),
            append_action=action,
            keep_empty_value=True,
        )
        for action, pairs in ((_SET, changes.set), (_ADD, changes.add))
        for name, value in pairs
        if name != _HOST
    ]
