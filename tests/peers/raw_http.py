"""Raw HTTP/1.1 over a socket, both sides, so that tests see every byte.

``serve PORT`` answers each request with odd but lawful headers, the request's own head and the
digest of its body in a body of a megabyte, chunked, with a trailer. ``ask HOST PORT`` prints what
it got. ``stream HOST PORT PATH`` prints each piece of an answer and when it came. JSON on standard
output.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import sys
import time

MEGABYTE = 1 << 20
REQUEST = [
    "PUT /Odd%20path;x=1?q=%2F&q=b HTTP/1.1",
    "Host: Server.Example:8081",
    "X-Mixed-CASE: Value  with  spaces",
    "x-twice: 1",
    "X-Other: between",
    "x-twice: 2",
    "Cookie: a=1; b=2",
    "Accept-Encoding: br",
    "User-Agent:",
    "X-Forwarded-For: 198.51.100.7",
    "X-Envoy-Original-Path: /mine",
    "X-Request-Id: mine",
    "Te: trailers",
    f"Content-Length: {MEGABYTE}",
]
RESPONSE = [
    "HTTP/1.1 207 Fine By Me",
    "Server: Mine/1.0",
    "Date: Thu, 01 Jan 1970 00:00:00 GMT",
    "Set-Cookie: a=1; Path=/",
    "Set-Cookie: b=2",
    "X-Mixed-CASE: yes",
    "X-Envoy-Upstream-Service-Time: mine",
    "Vary: Accept-Encoding",
    "Transfer-Encoding: chunked",
    "Trailer: X-Checksum",
]


def noise() -> bytes:
    return random.Random(7).randbytes(MEGABYTE)


def head_of(stream: socket.SocketIO) -> list[str]:
    lines = []
    while (line := _line(stream)) not in ("", None):
        lines.append(line)
    return lines


def _line(stream: socket.SocketIO) -> str:
    return stream.readline().decode("latin1").rstrip("\r\n")


def body_of(stream: socket.SocketIO, head: list[str]) -> tuple[bytes, list[str]]:
    """The body and its trailers."""
    fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:])}
    if fields.get("transfer-encoding") != "chunked":
        return _read(stream, int(fields.get("content-length", 0))), []
    body = b""
    while size := int(_line(stream), 16):
        body += _read(stream, size)
        _line(stream)
    return body, head_of(stream)


def _read(stream: socket.SocketIO, size: int) -> bytes:
    return stream.read(size) or b""


def serve(port: int) -> None:
    listener = socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    while True:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            head = head_of(stream)  # type: ignore[arg-type]
            if not head:
                continue
            body, _ = body_of(stream, head)  # type: ignore[arg-type]
            said = json.dumps({"head": head, "digest": hashlib.sha256(body).hexdigest()}).encode()
            answer = said + b"\n" + noise()
            connection.sendall("\r\n".join(RESPONSE).encode() + b"\r\n\r\n")
            for begin in range(0, len(answer), 50_000):
                piece = answer[begin : begin + 50_000]
                connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            connection.sendall(b"0\r\nX-Checksum: 1234\r\n\r\n")


def ask(host: str, port: int) -> None:
    with socket.create_connection((host, port), 20) as connection:
        connection.sendall("\r\n".join(REQUEST).encode() + b"\r\n\r\n" + noise())
        with connection.makefile("rb") as stream:
            head = head_of(stream)  # type: ignore[arg-type]
            body, trailers = body_of(stream, head)  # type: ignore[arg-type]
    said, _, rest = body.partition(b"\n")
    digest = hashlib.sha256(rest).hexdigest()
    seen = json.loads(said) if head and "207" in head[0] else said.decode(errors="replace")
    print(json.dumps({"head": head, "digest": digest, "trailers": trailers, "server": seen}))


def stream_of(host: str, port: int, path: str) -> None:
    with socket.create_connection((host, port), 90) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        begin, pieces = time.monotonic(), []
        while data := connection.recv(65536):
            pieces.append((round(time.monotonic() - begin, 2), data.decode()))
    print(json.dumps(pieces))


if __name__ == "__main__":
    command, *arguments = sys.argv[1:]
    if command == "serve":
        serve(int(arguments[0]))
    elif command == "ask":
        ask(arguments[0], int(arguments[1]))
    else:
        stream_of(arguments[0], int(arguments[1]), arguments[2])
