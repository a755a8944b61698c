"""Marks by which the datapath knows Envoy's sockets (docs/architecture.md, "marks")."""

from __future__ import annotations

from typing import Any

from envoy.config.core.v3 import socket_option_pb2

ENVOY_MARK = 0xA00
"""The datapath lets packets with it pass: Envoy judges what they carry."""
UPSTREAM_MARK = 0x1A00
"""The same, on connections that Envoy opens: their replies come back to it."""
_SOL_SOCKET, _SO_MARK = 1, 36  # Linux: asm-generic/socket.h


def marked(mark: int) -> Any:
    """The ``SocketOption`` that gives a socket its mark before it is bound."""
    return socket_option_pb2.SocketOption(
        description="mark of Envoy's own packets",
        level=_SOL_SOCKET,
        name=_SO_MARK,
        int_value=mark,
        state=socket_option_pb2.SocketOption.STATE_PREBIND,
    )
