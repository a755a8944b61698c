"""Metrics, and nothing else of the agent's API, to whoever can reach the node."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


def listen(port: int) -> socket.socket:
    """On every address of both families. Raises OSError."""
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True)


async def serve(listener: socket.socket, metrics: Callable[[], bytes]) -> None:
    """``GET /metrics`` until cancelled."""

    async def answer(_: Request) -> Response:
        return PlainTextResponse(metrics(), media_type="text/plain; version=0.0.4")

    application = Starlette(routes=[Route("/metrics", answer, methods=["GET"])])
    server = uvicorn.Server(uvicorn.Config(application, log_level="warning", lifespan="off"))
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    await server._serve([listener])
