"""Who reaches whom: a server on some ports, and a prober that asks for many at once.

``serve PORT...`` answers TCP, UDP and SCTP. ``probe`` reads a JSON object a line, {port, protocol,
seconds, targets: {name: [address]}}, and answers {name: [whether each address was reached]}.
SCTP is spoken by raw sockets, an INIT and its ACK: kernels may lack the protocol.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

IPPROTO_SCTP = 132
INIT, INIT_ACK = 1, 2
RESEND_SECONDS = 0.2


def serve(ports: list[int]) -> None:
    """Never returns."""
    ready = selectors.DefaultSelector()

    def add(made: socket.socket, on_ready: Callable[[socket.socket], None]) -> None:
        made.setblocking(False)
        ready.register(made, selectors.EVENT_READ, on_ready)

    for port in ports:
        tcp = socket.create_server(
            ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64
        )
        add(tcp, lambda listener: listener.accept()[0].close())
        udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        udp.bind(("::", port))
        add(udp, _echo)
    for family in (socket.AF_INET, socket.AF_INET6):
        add(socket.socket(family, socket.SOCK_RAW, IPPROTO_SCTP), _acknowledge(set(ports)))
    while True:
        for key, _ in ready.select():
            try:
                key.data(key.fileobj)
            except OSError as error:  # a client that went away
                print(error, file=sys.stderr, flush=True)


def _echo(udp: socket.socket) -> None:
    data, sender = udp.recvfrom(100)
    udp.sendto(data, sender)


def _acknowledge(ports: set[int]) -> Callable[[socket.socket], None]:
    def acknowledge(raw: socket.socket) -> None:
        data, sender = raw.recvfrom(1500)
        source, destination, chunk = _sctp(raw, data)
        if destination in ports and chunk == INIT:
            raw.sendto(_packet(destination, source, INIT_ACK), (sender[0], 0))

    return acknowledge


def _packet(source: int, destination: int, chunk: int) -> bytes:
    """Header and chunk of RFC 9260; nobody here looks at the checksum."""
    return struct.pack("!HHII", source, destination, 0, 0) + struct.pack(
        "!BBHIIHHI", chunk, 0, 20, 1, 65536, 1, 1, 1
    )


def _sctp(raw: socket.socket, data: bytes) -> tuple[int, int, int]:
    """Ports and type of the first chunk; IPv4 gives its own header too."""
    skip = (data[0] & 15) * 4 if raw.family == socket.AF_INET else 0
    source, destination, _, _, chunk = struct.unpack_from("!HHIIB", data, skip)
    return source, destination, chunk


async def _tcp(address: str, port: int) -> bool:
    with socket.socket(_family(address), socket.SOCK_STREAM) as client:
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, (address, port))
    return True


async def _udp(address: str, port: int) -> bool:
    with socket.socket(_family(address), socket.SOCK_DGRAM) as client:
        client.connect((address, port))
        return await _asked(client, b"?", lambda data: data == b"?")


async def _sctp_init(address: str, port: int) -> bool:
    with socket.socket(_family(address), socket.SOCK_RAW, IPPROTO_SCTP) as client:
        client.connect((address, 0))
        own = 40000 + client.fileno()  # one of its own for each at a time
        return await _asked(
            client,
            _packet(own, port, INIT),
            lambda data: _sctp(client, data) == (port, own, INIT_ACK),
        )


async def _asked(client: socket.socket, text: bytes, is_answer: Callable[[bytes], bool]) -> bool:
    """Again and again: a datagram may get lost without anybody denying it."""
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    while True:
        await loop.sock_sendall(client, text)
        try:
            async with asyncio.timeout(RESEND_SECONDS):
                while not is_answer(await loop.sock_recv(client, 1500)):
                    pass
        except TimeoutError:
            continue
        return True


PROTOCOLS = {"TCP": _tcp, "UDP": _udp, "SCTP": _sctp_init}


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


async def _reaches(protocol: str, address: str, port: int, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await PROTOCOLS[protocol](address, port)
    except (TimeoutError, OSError):
        return False


async def _answer(question: dict[str, Any]) -> dict[str, list[bool]]:
    async def all_of(addresses: list[str]) -> list[bool]:
        protocol, port, seconds = (question[key] for key in ("protocol", "port", "seconds"))
        asked = (_reaches(protocol, address, port, seconds) for address in addresses)
        return list(await asyncio.gather(*asked))

    targets = question["targets"]
    found = await asyncio.gather(*(all_of(addresses) for addresses in targets.values()))
    return dict(zip(targets, found, strict=True))


def probe() -> None:
    """Until its input ends."""
    for line in sys.stdin:
        print(json.dumps(asyncio.run(_answer(json.loads(line)))), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve([int(port) for port in sys.argv[2:]])
    else:
        probe()
