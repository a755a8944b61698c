"""Metrics, and nothing else of the agent's API, to whoever can reach the node."""

from __future__ import annotations

import socket
from collections.abc import Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from kube_store import serving


async def serve(listener: socket.socket, metrics: Callable[[], bytes]) -> None:
    """``GET /metrics`` until cancelled."""

    async def answer(_: Request) -> Response:
        return PlainTextResponse(metrics(), media_type="text/plain; version=0.0.4")

    application = Starlette(routes=[Route("/metrics", answer, methods=["GET"])])
    await serving.serve(application, listener)
