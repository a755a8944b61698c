"""An allowed exchange through our listener is unchanged save for what is hop-by-hop.

The real connection manager and cluster options; only the addresses differ: the listener is bound
where the test connects and the cluster knows the backend, as no datapath is there to redirect.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import address_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.config.listener.v3 import listener_pb2

from policy_engine.model import DirectionPolicy, EndpointPolicy, HttpRule, Parser, PortRule
from tests.system.envoy_rig import Node, eventually, node
from tests.system.module_rig import (
    BACKEND,
    CLIENT,
    CLIENT_IDENTITY,
    SERVER,
    SERVER_ID,
    SERVER_IDENTITY,
    free_port,
    grpc_backend,
)
from xds_server.http_listener import http_cluster
from xds_server.listeners import http_listener
from xds_server.resources import CLUSTER_TYPE, LISTENER_TYPE

pytestmark = pytest.mark.system


@pytest.fixture
def folder() -> Iterator[Path]:
    """A short path: Unix sockets live in it."""
    with tempfile.TemporaryDirectory(prefix="sgx") as path:
        yield Path(path)


def address(host: str, port: int) -> address_pb2.Address:
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(address=host, port_value=port)
    )


@dataclass
class Wire:
    """Sends bytes through Envoy and sees what arrives at the backend, which sends ``response``."""

    node: Node
    port: int
    response: bytes = b""
    arrived: bytearray = field(default_factory=bytearray)

    async def backend(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.arrived += data
                if self.response and b"\r\n\r\n" in self.arrived:
                    writer.write(self.response)
                    self.response = b""
        writer.close()

    async def exchange(self, request: bytes, response: bytes, until: bytes) -> bytes:
        """What the client receives, up to ``until``."""
        self.response = response
        self.arrived.clear()
        reader, writer = await asyncio.open_connection(
            SERVER, self.port, local_addr=(CLIENT, 0), limit=1 << 20
        )
        writer.write(request)
        received = await asyncio.wait_for(reader.readuntil(until), 5)
        writer.close()
        return received


@contextlib.asynccontextmanager
async def wire(folder: Path, backend_port: int = 0) -> AsyncIterator[Wire]:
    """``backend_port``: a backend of the test's own in place of the wire's."""
    async with node(folder) as rig:
        made = Wire(rig, free_port(SERVER))
        server = await asyncio.start_server(made.backend, BACKEND, 0)
        listener, cluster = http_listener(made.port), http_cluster()
        assert isinstance(listener, listener_pb2.Listener)
        listener.address.CopyFrom(address(SERVER, made.port))
        del listener.additional_addresses[:]
        del listener.listener_filters[2]  # original_src: the backend would answer past Envoy
        endpoint = endpoint_components_pb2.LbEndpoint(
            endpoint=endpoint_components_pb2.Endpoint(
                address=address(BACKEND, backend_port or server.sockets[0].getsockname()[1])
            )
        )
        cluster.type = cluster_pb2.Cluster.STATIC
        cluster.lb_policy = cluster_pb2.Cluster.ROUND_ROBIN
        cluster.load_assignment.CopyFrom(
            endpoint_pb2.ClusterLoadAssignment(
                cluster_name=cluster.name,
                endpoints=[endpoint_components_pb2.LocalityLbEndpoints(lb_endpoints=[endpoint])],
            )
        )
        rig.server.set_resources(CLUSTER_TYPE, {cluster.name: cluster})
        rig.server.set_resources(LISTENER_TYPE, {"sidegate-http": listener})
        rule = PortRule("cnp/test/rule", None, parser=Parser.HTTP, http=(HttpRule(),))
        ingress = DirectionPolicy(True, rules=(rule,))
        rig.server.publish_policy(
            EndpointPolicy(SERVER_ID, SERVER_IDENTITY, ingress, DirectionPolicy(), {}, 1)
        )
        rig.ipcache.put(CLIENT, CLIENT_IDENTITY)
        rig.ipcache.put(SERVER, SERVER_IDENTITY, SERVER_ID)
        await rig.server.start()
        await rig.supervisor.start()
        await eventually(lambda: rig.resource("sidegate-http")["acknowledged"])
        try:
            yield made
        finally:
            server.close()


PLAIN = b"HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 0\r\n\r\n"
END = b"\r\n\r\n"

REQUESTS = {
    "case, order of values, client's own headers": (
        b"GET /a%2Fb//c/../d?x=1 HTTP/1.1\r\nHost: orders:8080\r\nX-Mixed-CASE: One\r\n"
        b"X-Forwarded-For: 10.1.2.3\r\nX-Forwarded-Client-Cert: c\r\nX-Request-Id: mine\r\n"
        b"X-Forwarded-Proto: https\r\nUser-Agent: t\r\n\r\n"
    ),
    "nothing is added": b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n",
    "a body of known length": b"POST / HTTP/1.1\r\nHost: o\r\nContent-Length: 2\r\n\r\nhi",
    "expect": (
        b"POST / HTTP/1.1\r\nHost: o\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi"
    ),
    "many headers": b"GET / HTTP/1.1\r\nHost: o\r\n"
    + b"".join(b"X-%d: v\r\n" % i for i in range(500))
    + b"\r\n",
    "a large header": b"GET / HTTP/1.1\r\nHost: o\r\nX-Large: " + b"v" * 300_000 + b"\r\n\r\n",
}


def head(message: bytes) -> tuple[bytes, list[bytes], bytes]:
    """First line, header lines in sorted order (order among names has no meaning), body."""
    lines, _, body = message.partition(END)
    first, *headers = lines.split(b"\r\n")
    return first, sorted(headers), body


async def test_requests_arrive_as_they_were_sent(folder: Path) -> None:
    async with wire(folder) as made:
        for name, request in REQUESTS.items():
            await made.exchange(request, PLAIN, END)
            await asyncio.sleep(0.05)
            assert head(bytes(made.arrived)) == head(request), name


RESPONSES = {
    "server, reason, case": (
        b"HTTP/1.1 299 Quite Fine\r\nServer: mine\r\nDate: now\r\nX-CaSe: 1\r\n"
        b"Content-Length: 2\r\n\r\nhi"
    ),
    "trailers": (
        b"HTTP/1.1 200 OK\r\nDate: now\r\nTrailer: X-End\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"2\r\nhi\r\n0\r\nx-end: Yes\r\n\r\n"
    ),
    "many headers": b"HTTP/1.1 200 OK\r\nDate: now\r\n"
    + b"".join(b"X-%d: v\r\n" % i for i in range(500))
    + b"Content-Length: 2\r\n\r\nhi",
    "a large header": b"HTTP/1.1 200 OK\r\nDate: now\r\nX-Large: "
    + b"v" * 300_000
    + b"\r\nContent-Length: 2\r\n\r\nhi",
}


async def test_responses_arrive_as_they_were_sent(folder: Path) -> None:
    async with wire(folder) as made:
        for name, response in RESPONSES.items():
            until = response[-8:]
            received = await made.exchange(REQUESTS["nothing is added"], response, until)
            assert head(received) == head(response), name


async def test_upgrades_and_tunnels_pass(folder: Path) -> None:
    async with wire(folder) as made:
        switching = (
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        request = b"GET / HTTP/1.1\r\nHost: o\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        assert b"early" in await made.exchange(request, switching + b"early", b"early")
        established = b"HTTP/1.1 200 OK\r\n\r\n"
        request = b"CONNECT o:443 HTTP/1.1\r\nHost: o:443\r\n\r\n"
        assert b"tunnel" in await made.exchange(request, established + b"tunnel", b"tunnel")


async def test_http_10_and_an_offered_h2c_are_served(folder: Path) -> None:
    async with wire(folder) as made:
        answer = await made.exchange(b"GET / HTTP/1.0\r\n\r\n", PLAIN, END)
        assert answer.split(b" ")[1] == b"200"
        request = (
            b"GET / HTTP/1.1\r\nHost: o\r\nConnection: Upgrade, HTTP2-Settings\r\n"
            b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n"
        )
        assert (await made.exchange(request, PLAIN, END)).split(b" ")[1] == b"200"


async def test_grpc_passes_in_http_2(folder: Path) -> None:
    backend_port = free_port(BACKEND)
    backend = await grpc_backend(backend_port)
    async with (
        wire(folder, backend_port) as made,
        grpc.aio.insecure_channel(f"{SERVER}:{made.port}") as channel,
    ):
        echo = channel.unary_unary("/echo.Echo/Echo", bytes, bytes)
        answers = await asyncio.gather(*(echo(b"%d" % i, timeout=5) for i in range(200)))
        assert answers == [b"%d" % i for i in range(200)]
    await backend.stop(0)
