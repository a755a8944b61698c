"""A real Envoy with the module as a sidecar has it, an agent of the test's own, and a lease that is
a page of ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
import mmap
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx

from sidegate_api.policy.v1 import policy_pb2 as pb
from sidegate_api.policy.v1 import policy_pb2_grpc as pb_grpc
from tests.system.module_rig import (
    BACKEND,
    CLIENT,
    ENVOY,
    LIBRARY,
    SERVER,
    free_port,
    http_backend,
)

OWNER, OTHER, ENDPOINT = 1001, 1002, 7


class Agent(pb_grpc.PolicyServiceServicer):
    """An agent as a pod's socket has it: every address is ``identity``'s."""

    def __init__(self) -> None:
        self.identity = OWNER
        self.records: list[pb.VerdictRecord] = []
        self._met: set[bytes] = set()
        self._nonce = 0
        self._acked = 0
        self._out: asyncio.Queue[pb.PolicyResponse] = asyncio.Queue()

    async def push(self, *rules: pb.PortRule) -> None:
        """These rules are in force when it returns."""
        ingress = pb.DirectionPolicy(enforced=True, rules=rules)
        policy = pb.EndpointPolicy(
            endpoint_id=ENDPOINT, identity=9, revision=self._nonce + 1, ingress=ingress
        )
        await self._send(upserts=[policy], full=self._nonce == 0)

    async def readdress(self, identity: int) -> None:
        """Every address has another owner when it returns."""
        self.identity = identity
        await self._send(peers=map(self._peer, self._met))

    async def _send(self, **fields: Any) -> None:
        self._nonce += 1
        self._out.put_nowait(pb.PolicyResponse(nonce=self._nonce, **fields))
        await within(lambda: self._acked >= self._nonce)

    def _peer(self, address: bytes) -> pb.Peer:
        return pb.Peer(address=address, identity=self.identity, spiffe_path="ns/default/sa/a")

    async def StreamPolicies(
        self, requests: AsyncIterator[pb.PolicyRequest], _context: Any
    ) -> AsyncIterator[pb.PolicyResponse]:
        async def take() -> None:
            async for request in requests:
                if request.WhichOneof("message") == "ack":
                    self._acked = request.ack.nonce
                elif request.peers.addresses:
                    self._met.update(request.peers.addresses)
                    self._nonce += 1
                    peers = map(self._peer, request.peers.addresses)
                    self._out.put_nowait(pb.PolicyResponse(nonce=self._nonce, peers=peers))

        taking = asyncio.create_task(take())
        try:
            while True:
                yield await self._out.get()
        finally:
            taking.cancel()

    async def StreamVerdicts(
        self, batches: AsyncIterator[pb.VerdictBatch], _context: Any
    ) -> pb.VerdictSummary:
        async for batch in batches:
            self.records.extend(batch.records)
        return pb.VerdictSummary()

    async def denied(self, reason: pb.Reason.ValueType) -> None:
        """Waits for such a record."""
        await within(lambda: any(each.reason == reason for each in self.records))


async def within(condition: Callable[[], bool]) -> None:
    """Waits for 10 s."""
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("not in time")


class Sidecar:
    def __init__(self, agent: Agent, http: int, tcp: int, lease: int) -> None:
        self.agent, self.tcp = agent, tcp
        self._lease = mmap.mmap(lease, mmap.PAGESIZE)
        transport = httpx.AsyncHTTPTransport(local_address=CLIENT)
        self.client = httpx.AsyncClient(
            transport=transport, base_url=f"http://{SERVER}:{http}", timeout=10
        )

    @property
    def held(self) -> int:
        """When the module held its lease last, by the monotonic clock (nanoseconds)."""
        return int.from_bytes(self._lease[:8], "little")

    async def get(self) -> int:
        return (await self.client.get("/")).status_code

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(SERVER, self.tcp, local_addr=(CLIENT, 0))


async def echoes(stream: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> bool:
    """Whether what is sent comes back; False: the connection is closed."""
    reader, writer = stream
    with contextlib.suppress(ConnectionError):
        writer.write(b"x")
        return bool(await asyncio.wait_for(reader.read(1), 10))
    return False


@contextlib.asynccontextmanager
async def sidecar(
    folder: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Sidecar]:
    """``environment`` is Envoy's, besides our own."""
    agent, server = Agent(), grpc.aio.server()
    pb_grpc.add_PolicyServiceServicer_to_server(agent, server)
    server.add_insecure_port(f"unix:{folder}/agent.sock")
    await server.start()
    lease = os.memfd_create("lease")
    os.ftruncate(lease, 4096)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "lease.sock"))
    listener.listen()

    def hand_lease() -> None:
        peer, _ = listener.accept()
        with peer:
            socket.send_fds(peer, [b"\0"], [lease])

    asyncio.get_running_loop().add_reader(listener, hand_lease)
    web = await asyncio.start_server(http_backend, BACKEND, 0)
    echo = await asyncio.start_server(_echo, BACKEND, 0)
    http, tcp = free_port(SERVER), free_port(SERVER)
    backends = [each.sockets[0].getsockname()[1] for each in (web, echo)]
    (folder / "envoy.json").write_text(json.dumps(_config(folder, (http, tcp), backends)))
    with (folder / "envoy.log").open("wb") as log:
        envoy = subprocess.Popen(  # noqa: ASYNC220
            [ENVOY, "-c", folder / "envoy.json", "--concurrency", "2", "--disable-hot-restart",
             "-l", "warning"], stdout=log, stderr=log, env={**os.environ, **(environment or {})},
        )  # fmt: skip
    made = Sidecar(agent, http, tcp, lease)
    try:
        async with asyncio.timeout(30):
            while True:
                assert envoy.poll() is None, (folder / "envoy.log").read_text()
                with contextlib.suppress(OSError):
                    (await asyncio.open_connection(SERVER, http))[1].close()
                    break
                await asyncio.sleep(0.05)
        yield made
    finally:
        await made.client.aclose()
        envoy.terminate()
        envoy.wait(10)
        asyncio.get_running_loop().remove_reader(listener)
        listener.close()
        os.close(lease)
        await server.stop(0)


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(100):
        writer.write(data)
    writer.close()


def _config(folder: Path, ports: tuple[int, int], backends: list[int]) -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions.filters"

    def module(room: str, message: str, name: str) -> dict[str, Any]:
        own = json.dumps({"direction": "ingress", "directory": str(folder)})
        return {
            "name": name,
            "typed_config": {
                "@type": f"{kind}.{room}.dynamic_modules.v3.{message}",
                "dynamic_module_config": {
                    "name": "sidegate",
                    "do_not_close": True,
                    "module": {"local": {"filename": str(LIBRARY)}},
                },
                "filter_name": name,
                "filter_config": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": own,
                },
            },
        }

    hcm = {
        "@type": f"{kind}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "http"}}],
                }
            ]
        },
        "http_filters": [
            module("http", "DynamicModuleFilter", "sidegate_http"),
            {
                "name": "router",
                "typed_config": {"@type": f"{kind}.http.router.v3.Router"},
            },
        ],
    }
    proxy = {
        "@type": f"{kind}.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "tcp",
        "cluster": "tcp",
    }
    chains = [
        [{"name": "hcm", "typed_config": hcm}],
        [
            module("network", "DynamicModuleNetworkFilter", "sidegate_kafka"),
            {"name": "tcp", "typed_config": proxy},
        ],
    ]
    return {
        "static_resources": {
            "listeners": [
                {
                    "name": f"{port}",
                    "address": {"socket_address": {"address": SERVER, "port_value": port}},
                    "listener_filters": [
                        module("listener", "DynamicModuleListenerFilter", "sidegate_peer")
                    ],
                    "filter_chains": [{"filters": filters}],
                }
                for port, filters in zip(ports, chains, strict=True)
            ],
            "clusters": [
                {
                    "name": name,
                    "load_assignment": {
                        "cluster_name": name,
                        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {
                            "socket_address": {"address": BACKEND, "port_value": port}}}}]}],
                    },
                }
                for name, port in zip(("http", "tcp"), backends, strict=True)
            ],
        }
    }  # fmt: skip
