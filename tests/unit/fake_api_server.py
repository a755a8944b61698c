"""An API server in the test's own process, which can fail in every way on demand.

It holds objects of any kind by path, as JSON. One counter gives every resourceVersion, as etcd's.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from aiohttp import web

from kube_store.kube_access import Access, Headers, nobody
from kube_store.kube_client import KubeClient

Manifest = dict[str, Any]
# What is done instead of an answer; None: answer after all.
Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]
_BEFORE_CRDS_ARE_KNOWN = "404 page not found\n"


def status(code: int, retry_after: str = "", reason: str = "") -> Fault:
    async def answer(_: web.Request) -> web.StreamResponse:
        headers = {"Retry-After": retry_after} if retry_after else {}
        said = {"kind": "Status", "code": code, "message": f"it is {code}", "reason": reason}
        return web.json_response(said, status=code, headers=headers)

    return answer


def slow(seconds: float) -> Fault:
    async def answer(_: web.Request) -> None:
        await asyncio.sleep(seconds)

    return answer


def stream(text: bytes, whole: bool = True) -> Fault:
    """Of a watch (or a list); the connection is cut after it unless it is the ``whole``."""

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(text)
        if not whole:
            assert request.transport
            request.transport.close()
        return response

    return answer


def cut() -> Fault:
    async def answer(request: web.Request) -> web.StreamResponse:
        assert request.transport
        request.transport.close()
        return web.Response()

    return answer


class FakeApiServer:
    """``requests`` are those that came, as ``list``, ``watch`` or the method, with their query.

    ``faults`` are used up one a request, in order; ``always`` is used for each request besides.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[tuple[str, str], Manifest]] = {}
        self.missing: set[str] = set()
        self.version = 100
        self.oldest = 0  # watches from before are answered with 410
        self.sent: dict[str, int] = {}  # bytes of events, by path
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.bodies: list[tuple[str, Any]] = []
        self.faults: deque[Fault] = deque()
        self.always: Fault | None = None
        self.page = 500
        self._history: list[tuple[int, str, Manifest]] = []  # version, path, event
        self._watchers: dict[asyncio.Queue[bytes | None], str] = {}
        self._port = 0
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        """On the port that it had before, if it was up before."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        self.end_watches()
        if self._runner:
            await self._runner.cleanup()
        self._runner = None

    def client(self, headers: Headers = nobody) -> KubeClient:
        return KubeClient(Access(f"http://127.0.0.1:{self._port}", headers=headers))

    def change(self, path: str, *manifests: Manifest, deleted: tuple[str, ...] = ()) -> None:
        """New or changed objects, and names of the namespace default that go: in one write.

        What is as it was makes no event, as on a real server."""
        events = []
        known = self.objects.setdefault(path, {})
        for name in deleted:
            events.append(self._event(path, "DELETED", known.pop(("default", name))))
        for manifest in manifests:
            metadata = manifest["metadata"]
            key = metadata.get("namespace", ""), metadata["name"]
            if _without_version(known.get(key)) == _without_version(manifest):
                continue
            kind = "MODIFIED" if key in known else "ADDED"
            known[key] = copy.deepcopy(manifest)
            events.append(self._event(path, kind, known[key]))
        self.say(path, b"".join(_line(event) for event in events))

    def say(self, path: str, text: bytes) -> None:
        """These bytes to all who watch the path."""
        for queue, watched in self._watchers.items():
            if watched == path:
                queue.put_nowait(text)

    def end_watches(self) -> None:
        for queue in self._watchers:
            queue.put_nowait(None)

    def compact(self) -> None:
        """What was before now cannot be watched any more."""
        self.oldest = self.version

    @property
    def watching(self) -> int:
        return len(self._watchers)

    def count(self, what: str) -> int:
        return sum(1 for kind, _ in self.requests if kind == what)

    def _event(self, path: str, kind: str, manifest: Manifest) -> Manifest:
        self.version += 1
        manifest["metadata"]["resourceVersion"] = str(self.version)
        event = copy.deepcopy({"type": kind, "object": manifest})
        self._history.append((self.version, path, event))
        return event

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        query = dict(request.query)
        what = (
            request.method if request.method != "GET" else "watch" if "watch" in query else "list"
        )
        self.requests.append((what, query))
        fault = self.faults.popleft() if self.faults else self.always
        answer = await fault(request) if fault else None
        if answer is not None:
            return answer
        if what in ("PATCH", "POST"):
            return await self._written(request)
        if request.path in self.missing:
            return web.Response(status=404, text=_BEFORE_CRDS_ARE_KNOWN)
        if "customresourcedefinitions" in request.path:
            return await self._crd(request)
        if what == "list":
            return self._list(request.path, query)
        return await self._watch(request, int(query["resourceVersion"]))

    async def _written(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append((request.path, await request.json()))
        return web.json_response({})

    async def _crd(self, request: web.Request) -> web.StreamResponse:
        plural, _, group = request.path.rpartition("/")[2].partition(".")
        if any(f"/{group}/" in path and path.endswith(plural) for path in self.missing):
            return await _not_none(status(404, reason="NotFound")(request))
        versions = [{"name": version, "served": True} for version in ("v1", "v2")]
        return web.json_response({"spec": {"versions": versions}})

    def _list(self, path: str, query: dict[str, str]) -> web.Response:
        items = sorted(self.objects.get(path, {}).items())
        start = int(query.get("continue", 0))
        limit = min(self.page, int(query.get("limit", self.page)))
        metadata = {"resourceVersion": str(self.version)}
        if start + limit < len(items):
            metadata["continue"] = str(start + limit)
        found = [manifest for _, manifest in items[start : start + limit]]
        return web.json_response({"metadata": metadata, "items": found})

    async def _watch(self, request: web.Request, since: int) -> web.StreamResponse:
        path = request.path
        if since < self.oldest:
            gone = {"code": 410, "message": "too old resource version", "reason": "Expired"}
            return await _not_none(stream(_line({"type": "ERROR", "object": gone}))(request))
        response = web.StreamResponse()
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        missed = [event for v, p, event in self._history if v > since and p == path]
        if missed:
            queue.put_nowait(b"".join(map(_line, missed)))
        self._watchers[queue] = path
        try:
            await response.prepare(request)
            while (text := await queue.get()) is not None:
                await response.write(text)
                self.sent[path] = self.sent.get(path, 0) + len(text) - text.count(b"\n")
        finally:
            del self._watchers[queue]
        return response


async def _not_none(answer: Awaitable[web.StreamResponse | None]) -> web.StreamResponse:
    found = await answer
    assert found is not None
    return found


def _without_version(manifest: Manifest | None) -> Manifest | None:
    if manifest is None:
        return None
    metadata = {k: v for k, v in manifest["metadata"].items() if k != "resourceVersion"}
    return {**manifest, "metadata": metadata}


def _line(event: Manifest) -> bytes:
    return json.dumps(event).encode() + b"\n"


@contextlib.asynccontextmanager
async def fake_api_server() -> AsyncIterator[FakeApiServer]:
    server = FakeApiServer()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
