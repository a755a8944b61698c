"""A client of a Gateway: connections that are kept, and which hosts are served there."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable

from tests.system.netns import inside

_CONNECTIONS = 8
_PAUSE_SECONDS = 0.003
_ANSWER_SECONDS = 5.0


class Connection:
    """In a network namespace; one that the Gateway ends is opened again.

    One request at a time: of several together Envoy answers some of those that it has no route
    for, and closes a second later.
    """

    def __init__(self, netns: str, address: str, port: int) -> None:
        self._netns, self._address, self._port = netns, address, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def status(self, host: str) -> int:
        """0 where there is no answer."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                reader, writer = await self._connected()
                writer.write(f"GET / HTTP/1.1\r\nhost: {host}\r\n\r\n".encode())
                return await _answer(reader)
        except (OSError, EOFError, TimeoutError):
            self.close()
            return 0

    async def until_served(self, host: str) -> float:
        """The monotonic time at which it was first seen."""
        while await self.status(host) != 200:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(_PAUSE_SECONDS)
        return time.monotonic()

    def close(self) -> None:
        if self._streams:
            self._streams[1].close()
            self._streams = None

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._streams is None:
            with inside(self._netns):
                made = socket.socket()
            made.setblocking(False)
            loop = asyncio.get_running_loop()
            try:
                await loop.sock_connect(made, (self._address, self._port))
            except BaseException:
                made.close()
                raise
            self._streams = await asyncio.open_connection(sock=made)
        return self._streams


class Client:
    """Of several connections."""

    def __init__(self, netns: str, address: str, port: int) -> None:
        self._connections = [Connection(netns, address, port) for _ in range(_CONNECTIONS)]

    async def until_served(self, host: str) -> float:
        """As that of a connection."""
        return await self._connections[0].until_served(host)

    async def until_all_served(self, hosts: deque[str], complete: Callable[[], bool]) -> float:
        """The same for all ``hosts``, which may become more until they are ``complete``."""
        asking = (self._work_off(each, hosts, complete) for each in self._connections)
        return max(await asyncio.gather(*asking))

    @staticmethod
    async def _work_off(
        connection: Connection, hosts: deque[str], complete: Callable[[], bool]
    ) -> float:
        last = time.monotonic()
        while hosts or not complete():
            host = hosts.popleft() if hosts else None
            if host is not None and await connection.status(host) == 200:
                last = time.monotonic()
                continue
            if host is not None:
                hosts.append(host)
            await asyncio.sleep(_PAUSE_SECONDS)
        return last

    def close(self) -> None:
        for each in self._connections:
            each.close()


async def _answer(reader: asyncio.StreamReader) -> int:
    """Raises EOFError."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    await reader.readexactly(length)
    return int(head.split(b" ", 2)[1])
