"""The API server as plain JSON: requests and watches.

The official client's typed models cost a millisecond per object, and its way of sending another
half: the store wants the JSON itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import aiohttp
import msgspec

from kube_store.kube_access import Access, by_kubeconfig, of_pod, proxy_of

JSON = "application/json"
METADATA = f"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{JSON}"
METADATA_LIST = f"application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{JSON}"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

# What a request may raise besides KubeError: the connection, not the answer.
CONNECTION_ERRORS = (aiohttp.ClientError, TimeoutError, OSError)

_OPEN_SECONDS = 30.0
_USER_AGENT = "sidegate"
_BUFFER = 1 << 21  # an event may be as large as an object
# A server that is gone without a word (its machine, a link) is noticed after 30 s.
_KEEP_ALIVE = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}


class KubeError(RuntimeError):
    """The API server refused. ``status`` is the HTTP code; ``retry_after`` in seconds, 0 if the
    answer names none; ``reason`` as in a Kubernetes Status."""

    def __init__(self, status: int, message: str, reason: str = "", retry_after: float = 0) -> None:
        super().__init__(message)
        self.status, self.reason, self.retry_after = status, reason, retry_after


class WatchEvent(msgspec.Struct):
    """``type`` is ADDED, MODIFIED, DELETED, BOOKMARK or ERROR (its ``object`` is a Status)."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: dict[str, Any]


_EVENT = msgspec.json.Decoder(WatchEvent)


def resource_path(group_version: str, plural: str, namespace: str = "", name: str = "") -> str:
    """``group_version`` is "v1" or "group/version"."""
    parts = ["/apis" if "/" in group_version else "/api", group_version]
    if namespace:
        parts += ["namespaces", namespace]
    return "/".join([*parts, plural, *([name] if name else [])])


class KubeClient:
    """Methods raise KubeError or one of CONNECTION_ERRORS. Made inside of an event loop."""

    def __init__(self, access: Access) -> None:
        self._access = access
        # Not aiohttp's trust_env, which reads a file in a thread for each request.
        self._proxy = access.proxy or proxy_of(access.server)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=access.tls or True), read_bufsize=_BUFFER
        )

    async def close(self) -> None:
        await self._session.close()

    async def request(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = JSON,
        accept: str = JSON,
        seconds: float = 30,
    ) -> tuple[Any, int]:
        """The answer's JSON, and how many bytes it was."""
        timeout = aiohttp.ClientTimeout(total=seconds)
        response = await self._send(method, path, query, body, content_type, accept, timeout)
        raw = await response.read()
        if response.status >= 400:
            raise _refusal(response, raw)
        try:
            return msgspec.json.decode(raw), len(raw)
        except msgspec.DecodeError as error:
            raise aiohttp.ClientPayloadError(f"{method} {path}: {error}") from None

    async def find(self, path: str) -> dict[str, Any] | None:
        """None for what is not there."""
        try:
            found: dict[str, Any]
            found, _ = await self.request("GET", path)
        except KubeError as error:
            if error.status == 404:
                return None
            raise
        return found

    async def remove(self, path: str) -> None:
        """What is not there is no error."""
        try:
            await self.request("DELETE", path)
        except KubeError as error:
            if error.status != 404:
                raise

    async def apply(self, path: str, manifest: dict[str, Any], manager: str) -> None:
        """Server-side apply: what ``manager`` says holds, whoever said otherwise."""
        query = {"fieldManager": manager, "force": "true"}
        await self.request("PATCH", path, query, manifest, APPLY_PATCH)

    @contextlib.asynccontextmanager
    async def watch(
        self, path: str, query: Mapping[str, str], accept: str, seconds: float
    ) -> AsyncIterator[AsyncIterator[tuple[list[WatchEvent], int]]]:
        """Entered once the server has accepted: batches of events as they come in together, each
        with its bytes. Ends when the server ends it; ``seconds`` without a word is a timeout.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=seconds)
        async with asyncio.timeout(_OPEN_SECONDS):
            response = await self._send("GET", path, query, None, JSON, accept, timeout)
        try:
            if response.status >= 400:
                async with asyncio.timeout(_OPEN_SECONDS):
                    raise _refusal(response, await response.read())
            _keep_alive(response)
            yield _batches(response)
        finally:
            response.close()

    @contextlib.asynccontextmanager
    async def socket(
        self, path: str, query: Sequence[tuple[str, str]]
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """A WebSocket of ``v5.channel.k8s.io``: exec, attach, port-forward."""
        access = self._access
        async with self._session.ws_connect(
            access.server + path,
            params=query,
            headers=await access.headers(),
            protocols=["v5.channel.k8s.io", "v4.channel.k8s.io"],
            proxy=self._proxy,
        ) as socket:
            yield socket

    async def _send(
        self, method: str, path: str, query: Mapping[str, str] | None, body: Any,
        content_type: str, accept: str, timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109
    ) -> aiohttp.ClientResponse:  # fmt: skip
        access = self._access
        said = {"Accept": accept, "Content-Type": content_type, "User-Agent": _USER_AGENT}
        return await self._session.request(
            method,
            access.server + path,
            params=query,
            data=None if body is None else msgspec.json.encode(body),
            headers={**await access.headers(), **said},
            timeout=timeout,
            server_hostname=access.server_name,
            proxy=self._proxy,
        )


async def connect(kubeconfig: Path | None) -> KubeClient:
    """With this kubeconfig, or as the pod that we are. Raises OSError, which says what to do."""
    try:
        access = await (by_kubeconfig(kubeconfig) if kubeconfig else of_pod())
    except (ValueError, OSError) as error:
        where = f"kubeconfig {kubeconfig}" if kubeconfig else "no kubeconfig"
        raise OSError(f"{where}: {error}; name another with --kubeconfig") from None
    return KubeClient(access)


async def _batches(
    response: aiohttp.ClientResponse,
) -> AsyncIterator[tuple[list[WatchEvent], int]]:
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        if lines:
            try:
                yield [_EVENT.decode(line) for line in lines if line], sum(map(len, lines))
            except msgspec.DecodeError as error:
                raise aiohttp.ClientPayloadError(f"watch {response.url.path}: {error}") from None


def _keep_alive(response: aiohttp.ClientResponse) -> None:
    connection = response.connection
    if connection and connection.transport:
        raw = connection.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEP_ALIVE.items():
            raw.setsockopt(socket.IPPROTO_TCP, option, value)


def _refusal(response: aiohttp.ClientResponse, raw: bytes) -> KubeError:
    message, reason = raw[:300].decode(errors="replace"), ""
    try:
        status = msgspec.json.decode(raw)
        message, reason = status.get("message", message), status.get("reason", "")
    except (msgspec.DecodeError, AttributeError):
        pass
    try:
        after = float(response.headers.get("Retry-After", 0))
    except ValueError:
        after = 0
    return KubeError(response.status, message, reason, after)
