"""Clients of a Gateway that count what goes wrong: ``SECONDS ADDRESS HTTP HTTPS CA``.

Of plain HTTP and of HTTP/1.1, 2 and 3 over TLS each, one client keeps its connection and another
dials for every request; the certificate is verified by the file CA. JSON on standard output, for
each client: requests that were answered 200, how often each failure was seen, the certificates that
it was shown (how many), and what it was told by ``alt-svc``.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import ssl
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx

from tests.peers.http3 import Http3, connected

HOST = "churn.test"
_SECONDS = 20.0
_PAUSE_SECONDS = {"kept": 0.002, "new": 0.01}  # between two requests


@dataclass(frozen=True)
class Where:
    address: str
    plain: int
    secure: int
    ca: str


@dataclass
class Seen:
    status: int
    told: str | None
    certificate: Any = None


class Client(Protocol):
    """Dials when it is asked and has no connection. Both raise whatever goes wrong."""

    def ask(self) -> Seen: ...
    def close(self) -> None: ...


class Http1:
    """Plain, or over TLS if it has a context."""

    def __init__(self, where: Where, context: ssl.SSLContext | None) -> None:
        self._where, self._context = where, context
        port = where.secure if context else where.plain
        self._connection = http.client.HTTPConnection(where.address, port, timeout=_SECONDS)
        self._to = (where.address, port)

    def ask(self) -> Seen:
        if self._connection.sock is None:
            dialled = socket.create_connection(self._to, _SECONDS)
            self._connection.sock = (
                self._context.wrap_socket(dialled, server_hostname=HOST)
                if self._context
                else dialled
            )
        shown = self._connection.sock
        certificate = shown.getpeercert() if isinstance(shown, ssl.SSLSocket) else None
        self._connection.request("GET", "/", headers={"Host": HOST})
        answer = self._connection.getresponse()
        answer.read()
        serial = certificate and certificate["serialNumber"]
        return Seen(answer.status, answer.getheader("alt-svc"), serial)

    def close(self) -> None:
        self._connection.close()


class Http2:
    def __init__(self, where: Where, context: ssl.SSLContext) -> None:
        self._url = f"https://{where.address}:{where.secure}/"
        self._context = context
        self._client: httpx.Client | None = None

    def ask(self) -> Seen:
        if self._client is None:
            self._client = httpx.Client(
                http1=False, http2=True, verify=self._context, timeout=_SECONDS, trust_env=False
            )
        answer = self._client.get(
            self._url, headers={"Host": HOST}, extensions={"sni_hostname": HOST}
        )
        shown = answer.extensions["network_stream"].get_extra_info("ssl_object")
        serial = shown.getpeercert()["serialNumber"]
        return Seen(answer.status_code, answer.headers.get("alt-svc"), serial)

    def close(self) -> None:
        if self._client:
            self._client.close()
        self._client = None


class Http3Client:
    def __init__(self, where: Where) -> None:
        self._where = where
        self._loop = asyncio.new_event_loop()
        self._stack = contextlib.AsyncExitStack()
        self._connection: Http3 | None = None

    def ask(self) -> Seen:
        return self._loop.run_until_complete(asyncio.wait_for(self._ask(), _SECONDS))

    async def _ask(self) -> Seen:
        if self._connection is None:
            at = self._where
            opened = connected(at.address, at.secure, HOST, at.ca)
            self._connection = await self._stack.enter_async_context(opened)
        answer = await self._connection.get(HOST, "/")
        certificate = self._connection.certificate
        return Seen(answer.status, answer.headers.get("alt-svc"), certificate)

    def close(self) -> None:
        self._connection = None
        self._loop.run_until_complete(self._stack.aclose())


@dataclass
class Counted:
    ok: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    certificates: set[Any] = field(default_factory=set)
    told: set[str | None] = field(default_factory=set)

    def note(self, seen: Seen) -> None:
        self.certificates.add(seen.certificate)
        self.told.add(seen.told)
        if seen.status == 200:
            self.ok += 1
        else:
            self.failures[str(seen.status)] += 1

    def rendered(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "failures": dict(self.failures),
            "certificates": len(self.certificates),
            "alt-svc": sorted(map(str, self.told)),
        }


def load(make: Callable[[], Client], keep: bool, end: float) -> Counted:
    """What one client has seen until ``end`` (monotonic)."""
    found, client = Counted(), make()
    while time.monotonic() < end:
        try:
            found.note(client.ask())
            if not keep:
                client.close()
        except (OSError, http.client.HTTPException, httpx.HTTPError) as error:
            found.failures[repr(error)] += 1
            client.close()
            client = make()
        time.sleep(_PAUSE_SECONDS["kept" if keep else "new"])
    client.close()
    return found


def main() -> None:
    seconds, address, plain, secure, ca = sys.argv[1:]
    where = Where(address, int(plain), int(secure), ca)
    kinds: dict[str, Callable[[], Client]] = {
        "HTTP/1.1": lambda: Http1(where, None),
        "HTTP/1.1 over TLS": lambda: Http1(where, ssl.create_default_context(cafile=ca)),
        "HTTP/2 over TLS": lambda: Http2(where, ssl.create_default_context(cafile=ca)),
        "HTTP/3": lambda: Http3Client(where),
    }
    end, found = time.monotonic() + float(seconds), {}

    def run(kind: str, keep: bool) -> None:
        counted = load(kinds[kind], keep, end)
        found[f"{kind}, {'kept' if keep else 'new'}"] = counted.rendered()

    threads = [
        threading.Thread(target=run, args=(k, keep)) for k in kinds for keep in (True, False)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    print(json.dumps(found))


if __name__ == "__main__":
    main()
