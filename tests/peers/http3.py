"""A client of HTTP/3 (RFC 9114), by aioquic."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamReset

_NONE: Mapping[str, str] = MappingProxyType({})


@dataclass
class Answer:
    """``ended`` is set with the whole answer, or with the error that ended the connection."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    ended: asyncio.Future[None] = field(default_factory=lambda: asyncio.Future())


class Http3(QuicConnectionProtocol):
    """One connection, made by :func:`connected`."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **options)
        self._http = H3Connection(self._quic)
        self._answers: dict[int, Answer] = {}

    @property
    def certificate(self) -> int:
        """The serial number of what the server has shown."""
        shown = self._quic.tls._peer_certificate
        assert shown
        return shown.serial_number

    async def get(self, host: str, path: str, more: Mapping[str, str] = _NONE) -> Answer:
        """``more`` headers, in small letters. Raises ConnectionError."""
        stream = self._quic.get_next_available_stream_id()
        answer = self._answers[stream] = Answer()
        wanted = {":method": "GET", ":scheme": "https", ":authority": host, ":path": path}
        wanted |= more
        headers = [(name.encode(), value.encode()) for name, value in wanted.items()]
        self._http.send_headers(stream, headers, end_stream=True)
        self.transmit()
        await answer.ended
        return answer

    def quic_event_received(self, event: QuicEvent) -> None:
        match event:
            case ConnectionTerminated():
                for answer in self._answers.values():
                    _fail(answer, f"the connection ended: {event.reason_phrase or event}")
            case StreamReset() if event.stream_id in self._answers:
                _fail(self._answers.pop(event.stream_id), f"the stream was reset: {event}")
        for found in self._http.handle_event(event):
            if not isinstance(found, HeadersReceived | DataReceived):
                continue
            answer = self._answers[found.stream_id]
            if isinstance(found, DataReceived):
                answer.body += found.data
            else:
                headers = {name.decode(): value.decode() for name, value in found.headers}
                answer.status = int(headers.pop(":status", answer.status))
                answer.headers |= headers
            if found.stream_ended:
                self._answers.pop(found.stream_id).ended.set_result(None)


def _fail(answer: Answer, why: str) -> None:
    if not answer.ended.done():
        answer.ended.set_exception(ConnectionError(why))


@asynccontextmanager
async def connected(address: str, port: int, name: str, ca: str) -> AsyncIterator[Http3]:
    """To an address, whose certificate is for ``name``, by the file ``ca``. Raises ConnectionError.

    It ends after 20 s of silence.
    """
    configuration = QuicConfiguration(
        alpn_protocols=H3_ALPN, server_name=name, cafile=ca, idle_timeout=20
    )
    async with connect(
        address, port, configuration=configuration, create_protocol=Http3
    ) as protocol:
        assert isinstance(protocol, Http3)
        yield protocol
