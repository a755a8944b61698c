"""HTTP from inside an event loop that has its own jobs, and whose signals are its owner's."""

from __future__ import annotations

import socket

import uvicorn
from starlette.applications import Starlette


def listen(port: int) -> socket.socket:
    """TCP on every address, of both families where the machine has both. Raises OSError."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


async def serve(application: Starlette, listener: socket.socket) -> None:
    """Until cancelled; the listener is closed then."""
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning", lifespan="off"))
    try:
        await server._serve([listener])  # serve() would take our signals
    finally:
        for each in getattr(server, "servers", ()):  # there are none before it has started
            each.close()
