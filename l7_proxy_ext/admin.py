"""A client of Envoy's admin interface on its Unix socket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

_TIMEOUT_SECONDS = 5.0


class Admin:
    """Every call raises ConnectionError when Envoy does not answer on the socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def config_dump(self) -> dict[str, Any]:
        """`envoy.admin.v3.ConfigDump` as JSON."""
        result: dict[str, Any] = (await self._get("/config_dump")).json()
        return result

    async def stats(self, pattern: str = "") -> dict[str, int]:
        """Counters and gauges by name, those that ``pattern`` (a regular expression) finds."""
        query = {"format": "json", "usedonly": ""} | ({"filter": pattern} if pattern else {})
        answer = (await self._get("/stats", query)).json()
        return {s["name"]: s["value"] for s in answer["stats"] if isinstance(s.get("value"), int)}

    async def ready(self) -> bool:
        """Whether Envoy is live: its first listeners and clusters are in place."""
        return (await self._get("/ready")).status_code == httpx.codes.OK

    async def _get(self, path: str, query: dict[str, str] | None = None) -> httpx.Response:
        transport = httpx.AsyncHTTPTransport(uds=str(self._path))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://envoy", timeout=_TIMEOUT_SECONDS
        ) as client:
            try:
                return await client.get(path, params=query)
            except httpx.TransportError as error:
                raise ConnectionError(f"{self._path}: Envoy does not answer: {error}") from error
