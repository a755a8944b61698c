"""The agent's REST API on its Unix socket: thin routes over :class:`node_agent.agent.Agent`.

Errors are ``{"error": text}`` with the field and the remedy in the text. Streams are NDJSON.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from flow_observer.filter import BadFilter
from gateway_translator.tracing import BadUrlError
from node_agent import views
from node_agent.agent import Agent
from node_agent.endpoints import BadEndpoint
from node_agent.gateways import Gateways
from node_agent.trace import BadTrace
from node_agent.trace_request import answer


async def _body(request: Request) -> Any:
    try:
        return await request.json()
    except ValueError as error:
        raise HTTPException(400, f"body: not JSON: {error}") from None


def _ndjson(items: AsyncIterator[Any]) -> StreamingResponse:
    async def lines() -> AsyncIterator[bytes]:
        async for item in items:
            yield json.dumps(item, separators=(",", ":")).encode() + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


def _required(value: Any, what: str) -> Any:
    if value is None:
        raise HTTPException(404, f"{what}: there is none")
    return value


class Routes:
    """One method per route."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def healthz(self, _: Request) -> Response:
        return JSONResponse({"ok": True})

    async def config(self, _: Request) -> Response:
        cluster = self._agent.cluster
        return JSONResponse({"pod_cidrs": list(cluster.pod_cidrs) if cluster else []})

    async def version(self, _: Request) -> Response:
        return JSONResponse(views.version())

    async def status(self, _: Request) -> Response:
        return JSONResponse(await views.status(self._agent))

    async def metrics(self, _: Request) -> Response:
        return PlainTextResponse(self._agent.metrics.text(), media_type="text/plain; version=0.0.4")

    async def endpoints(self, _: Request) -> Response:
        table = self._agent.enforcement.table
        return JSONResponse({"items": [views.endpoint(self._agent, each) for each in table]})

    async def endpoint(self, request: Request) -> Response:
        wanted = request.path_params["id"]
        found = _required(self._agent.enforcement.table.find(wanted), f"endpoint {wanted}")
        return JSONResponse(views.endpoint(self._agent, found))

    async def put_endpoint(self, request: Request) -> Response:
        body = await _body(request)
        if isinstance(body, dict):
            body.setdefault("container_id", request.path_params["id"])
        record = await self._agent.add_endpoint(body)
        return JSONResponse({"endpoint_id": record.id, "identity": record.identity}, 201)

    async def delete_endpoint(self, request: Request) -> Response:
        await self._agent.remove_endpoint(request.path_params["id"])
        return JSONResponse({})

    async def identities(self, _: Request) -> Response:
        return JSONResponse({"items": views.identities(self._agent)})

    async def sidecars(self, _: Request) -> Response:
        sidecars = self._agent.sidecars
        return JSONResponse({"items": sidecars.view() if sidecars else []})

    async def resources(self, request: Request) -> Response:
        query = request.query_params
        kind = views.full_kind(query.get("kind"))
        found = self._agent.store.list(kind, query.get("namespace"), query.get("name"))
        return JSONResponse({"items": [views.resource(self._agent, each) for each in found]})

    async def apply(self, request: Request) -> Response:
        body = await _body(request)
        objects = body.get("objects") if isinstance(body, dict) else None
        if not isinstance(objects, list):
            raise HTTPException(400, "objects: a list of manifests is required")
        return JSONResponse({"results": await self._agent.objects.apply(objects)})

    async def delete(self, request: Request) -> Response:
        body = await _body(request)
        objects = body.get("objects") if isinstance(body, dict) else None
        if not isinstance(objects, list):
            raise HTTPException(400, "objects: a list of objects with kind and name is required")
        return JSONResponse({"results": await self._agent.objects.delete(objects)})

    async def pod_status(self, request: Request) -> Response:
        params = request.path_params
        status = await _body(request)
        self._agent.objects.pod_status[params["namespace"], params["name"]] = status
        return JSONResponse({})

    async def policy(self, request: Request) -> Response:
        table = self._agent.enforcement.table
        records = list(table)
        if wanted := request.query_params.get("endpoint"):
            records = [found] if (found := table.find(wanted)) else []
        return JSONResponse({"items": [views.policy(self._agent, each) for each in records]})

    async def trace(self, request: Request) -> Response:
        return JSONResponse(answer(self._agent, await _body(request)))

    async def gateway_status(self, _: Request) -> Response:
        return JSONResponse({"items": self._gateways().status()})

    async def gateway_routes(self, _: Request) -> Response:
        return JSONResponse({"items": self._gateways().routes()})

    async def gateway_trace(self, request: Request) -> Response:
        return JSONResponse({"items": self._gateways().trace(await _body(request))})

    def _gateways(self) -> Gateways:
        found: Gateways = _required(
            self._agent.gateways, "Gateways: this agent runs without --gateways"
        )
        return found

    async def maps(self, _: Request) -> Response:
        return JSONResponse({"items": self._agent.datapath.map_list()})

    async def map_rows(self, request: Request) -> Response:
        name, member = request.path_params["name"], self._agent.member
        if name == "services" and member and member.services:
            return JSONResponse({"rows": member.services.rows()})
        return JSONResponse({"rows": _required(self._agent.datapath.dump(name), f"map {name}")})

    async def flows(self, request: Request) -> Response:
        return _ndjson(self._agent.flows.stream(dict(request.query_params)))

    async def watch(self, request: Request) -> Response:
        return _ndjson(self._agent.objects.watch(request.query_params.get("kind")))

    async def envoy(self, request: Request) -> Response:
        admin = self._agent.admin
        asked = request.path_params["what"] == "config"
        return JSONResponse(await (admin.config_dump() if asked else admin.stats()))


def application(agent: Agent) -> Starlette:
    """The whole API as an ASGI application."""
    routes = Routes(agent)
    table: list[tuple[str, str, Callable[[Request], Any]]] = [
        ("GET", "/v1/healthz", routes.healthz),
        ("GET", "/v1/config", routes.config),
        ("GET", "/v1/version", routes.version),
        ("GET", "/v1/status", routes.status),
        ("GET", "/metrics", routes.metrics),
        ("GET", "/v1/endpoints", routes.endpoints),
        ("GET", "/v1/endpoints/{id:path}", routes.endpoint),
        ("PUT", "/v1/endpoints/{id}", routes.put_endpoint),
        ("DELETE", "/v1/endpoints/{id}", routes.delete_endpoint),
        ("GET", "/v1/identities", routes.identities),
        ("GET", "/v1/sidecars", routes.sidecars),
        ("GET", "/v1/resources", routes.resources),
        ("PUT", "/v1/resources/pods/{namespace}/{name}/status", routes.pod_status),
        ("POST", "/v1/apply", routes.apply),
        ("POST", "/v1/delete", routes.delete),
        ("GET", "/v1/policy", routes.policy),
        ("POST", "/v1/policy/trace", routes.trace),
        ("GET", "/v1/gateways/status", routes.gateway_status),
        ("GET", "/v1/gateways/routes", routes.gateway_routes),
        ("POST", "/v1/gateways/trace", routes.gateway_trace),
        ("GET", "/v1/maps", routes.maps),
        ("GET", "/v1/maps/{name}", routes.map_rows),
        ("GET", "/v1/flows", routes.flows),
        ("GET", "/v1/watch", routes.watch),
        ("GET", "/v1/envoy/{what}", routes.envoy),
    ]

    def guarded(path: str, handler: Callable[[Request], Any]) -> Callable[[Request], Any]:
        async def when_ready(request: Request) -> Any:
            if path != "/v1/version" and (why := agent.not_ready()):
                raise HTTPException(503, why)
            return await handler(request)

        return when_ready

    async def refused(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 400)

    async def http_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return JSONResponse({"error": error.detail}, error.status_code)

    async def failed(_: Request, error: Exception) -> Response:
        return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 500)

    return Starlette(
        routes=[
            Route(path, guarded(path, handler), methods=[method]) for method, path, handler in table
        ],
        exception_handlers={
            BadEndpoint: refused,
            BadTrace: refused,
            BadUrlError: refused,
            BadFilter: refused,
            HTTPException: http_error,
            Exception: failed,
        },
    )
