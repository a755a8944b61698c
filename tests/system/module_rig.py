"""A real Envoy with the module, an agent and an `ipcache` of the test's own.

Addresses are loopback ones: clients come from CLIENT or STRANGER, the listener is SERVER.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import mmap
import os
import socket
import struct
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
import httpx

from sidegate_api.policy.v1 import policy_pb2 as pb
from sidegate_api.policy.v1 import policy_pb2_grpc as pb_grpc

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "l7_proxy_ext" / "lib" / "libsidegate.so"
ENVOY = next((ROOT / ".venv").glob("lib/python*/site-packages/envoy/_bin/envoy"))

QUIET = ("-l", "warning")

CLIENT, STRANGER, SERVER, BACKEND = "127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"
CLIENT_IDENTITY, SERVER_IDENTITY, WORLD = 1001, 1002, 2
SERVER_ID = 7

_MAP_CREATE, _MAP_UPDATE, _OBJ_PIN = 0, 2, 6
_LPM_TRIE, _ARRAY, _NO_PREALLOC, _MMAPABLE = 11, 2, 1, 1 << 10
_SYS_BPF = 321
_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attr: bytes) -> int:
    buffer = ctypes.create_string_buffer(attr, len(attr))
    result = _libc.syscall(_SYS_BPF, command, buffer, len(attr))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf({command})")
    return int(result)


def _create(path: Path, kind: int, key: int, value: int, entries: int, flags: int) -> int:
    fd = _bpf(_MAP_CREATE, struct.pack("=IIIII", kind, key, value, entries, flags))
    name = ctypes.create_string_buffer(bytes(path))
    _bpf(_OBJ_PIN, struct.pack("=QI4x", ctypes.addressof(name), fd))
    return fd


class IpCache:
    """The maps of docs/architecture.md, pinned in a bpffs of the test's own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
        self._map = _create(folder / "ipcache", _LPM_TRIE, 20, 8, 1024, _NO_PREALLOC)
        epoch = _create(folder / "ipcache_epoch", _ARRAY, 4, 8, 1, _MMAPABLE)
        self._epoch = mmap.mmap(epoch, mmap.PAGESIZE)
        self.put("0.0.0.0", WORLD, bits=96)
        self.put("::", WORLD, bits=0)

    def put(self, address: str, identity: int, endpoint_id: int = 0, bits: int = 128) -> None:
        if ":" in address:
            packed = socket.inet_pton(socket.AF_INET6, address)
        else:
            packed = b"\0" * 10 + b"\xff\xff" + socket.inet_aton(address)
        key = ctypes.create_string_buffer(struct.pack("=I16s", bits, packed), 20)
        value = ctypes.create_string_buffer(struct.pack("<IHH", identity, endpoint_id, 0), 8)
        element = struct.pack(
            "=I4xQQQ", self._map, ctypes.addressof(key), ctypes.addressof(value), 0
        )
        _bpf(_MAP_UPDATE, element)
        self._epoch[:8] = struct.pack("=Q", struct.unpack("=Q", self._epoch[:8])[0] + 1)

    def close(self) -> None:
        subprocess.run(["umount", self._folder], check=True)


class Agent(pb_grpc.PolicyServiceServicer):
    """The policy service: pushes what a test says, keeps what the module says."""

    def __init__(self, socket_path: Path) -> None:
        self.socket_path = socket_path
        self.hello: asyncio.Future[pb.Hello] = asyncio.get_running_loop().create_future()
        self.records: list[pb.VerdictRecord] = []
        self.initial: list[pb.EndpointPolicy] = []
        self._nonce = 0
        self._out: asyncio.Queue[pb.PolicyResponse] = asyncio.Queue()
        self._acks: dict[int, asyncio.Future[pb.Ack]] = {}
        self._server: grpc.aio.Server | None = None

    async def start(self) -> Self:
        self._server = grpc.aio.server()
        pb_grpc.add_PolicyServiceServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"unix:{self.socket_path}")
        await self._server.start()
        return self

    async def stop(self) -> None:
        if self._server:
            await self._server.stop(0)
        self._server = None

    async def push(self, *policies: pb.EndpointPolicy, full: bool = False) -> pb.Ack:
        """Sends policies and returns the acknowledgement."""
        self._nonce += 1
        ack = self._acks[self._nonce] = asyncio.get_running_loop().create_future()
        self._out.put_nowait(pb.PolicyResponse(nonce=self._nonce, full=full, upserts=policies))
        return await asyncio.wait_for(ack, 5)

    async def record(self, **fields: Any) -> pb.VerdictRecord:
        """The first record with these fields; waits for it for 2 s."""
        for _ in range(200):
            for record in self.records:
                if all(getattr(record, name) == value for name, value in fields.items()):
                    return record
            await asyncio.sleep(0.01)
        raise AssertionError(f"no record with {fields} in {self.records}")

    async def StreamPolicies(
        self, requests: AsyncIterator[pb.PolicyRequest], _context: Any
    ) -> AsyncIterator[pb.PolicyResponse]:
        first = await anext(requests)
        if not self.hello.done():
            self.hello.set_result(first.hello)

        async def take_acks() -> None:
            async for request in requests:
                self._acks[request.ack.nonce].set_result(request.ack)

        acks = asyncio.create_task(take_acks())
        try:
            while True:
                yield await self._out.get()
        finally:
            acks.cancel()

    async def StreamVerdicts(
        self, batches: AsyncIterator[pb.VerdictBatch], _context: Any
    ) -> pb.VerdictSummary:
        async for batch in batches:
            self.records.extend(batch.records)
        return pb.VerdictSummary(received=len(self.records))


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _module(kind: str, message: str, name: str) -> dict[str, Any]:
    package = f"envoy.extensions.filters.{kind}.dynamic_modules.v3"
    return {
        "name": name,
        "typed_config": {
            "@type": f"type.googleapis.com/{package}.{message}",
            "dynamic_module_config": {"name": "sidegate"},
            "filter_name": name,
        },
    }


@dataclass
class Rig:
    folder: Path
    ipcache: IpCache
    agent: Agent
    port: int = field(default_factory=lambda: free_port(SERVER))
    backend_port: int = 0
    grpc_port: int = 0
    upstream_filter: bool = False
    node: str = "rig"
    bootstrap_config: dict[str, str] | None = None
    _envoy: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{SERVER}:{self.port}"

    @property
    def log(self) -> str:
        return (self.folder / "envoy.log").read_text()

    def client(self, address: str = CLIENT, **options: Any) -> httpx.AsyncClient:
        http2 = bool(options.pop("http2", False))
        transport = httpx.AsyncHTTPTransport(
            local_address=address, http1=not http2, http2=http2, **options
        )
        return httpx.AsyncClient(transport=transport, base_url=self.url, timeout=5)

    def bootstrap(self) -> dict[str, Any]:
        http = _module("http", "DynamicModuleFilter", "sidegate_http")
        router = {
            "name": "envoy.filters.http.router",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
            },
        }
        codec = {
            "name": "envoy.filters.http.upstream_codec",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.http.upstream_codec.v3"
                ".UpstreamCodec"
            },
        }
        upstream = [http, codec] if self.upstream_filter else [codec]
        routes = [
            {
                "match": {"prefix": "/", "grpc": {}},
                "route": {"cluster": "grpc", "timeout": "0s"},
            },
            {"match": {"prefix": "/"}, "route": {"cluster": "http", "timeout": "0s"}},
        ]
        hcm = {
            "name": "hcm",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network"
                ".http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "in",
                "upgrade_configs": [{"upgrade_type": "websocket"}],
                "route_config": {
                    "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]
                },
                "http_filters": [router] if self.upstream_filter else [http, router],
            },
        }
        listener = {
            "name": "in",
            "address": {"socket_address": {"address": SERVER, "port_value": self.port}},
            "listener_filters": [
                _module("listener", "DynamicModuleListenerFilter", "sidegate_peer"),
                _module("listener", "DynamicModuleListenerFilter", "sidegate_guard"),
            ],
            "filter_chains": [{"filters": [hcm]}],
        }
        config = self.bootstrap_config or {
            "node": self.node,
            "agent_socket": str(self.agent.socket_path),
            "ipcache": str(self.folder / "bpf" / "ipcache"),
            "ipcache_epoch": str(self.folder / "bpf" / "ipcache_epoch"),
        }
        return {
            "node": {"id": self.node, "cluster": self.node},
            "bootstrap_extensions": [
                {
                    "name": "sidegate",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.bootstrap.dynamic_modules"
                        ".v3.DynamicModuleBootstrapExtension",
                        "dynamic_module_config": {"name": "sidegate"},
                        "extension_name": "sidegate",
                        "extension_config": {
                            "@type": "type.googleapis.com/google.protobuf.StringValue",
                            "value": json.dumps(config),
                        },
                    },
                }
            ],
            "static_resources": {
                "listeners": [listener],
                "clusters": [
                    _cluster("http", self.backend_port, {"http_protocol_options": {}}, upstream),
                    _cluster("grpc", self.grpc_port, {"http2_protocol_options": {}}, upstream),
                ],
            },
        }

    async def start(self) -> None:
        """Starts Envoy and waits until it listens."""
        bootstrap = self.folder / "bootstrap.json"
        bootstrap.write_text(json.dumps(self.bootstrap()))
        with (self.folder / "envoy.log").open("wb") as log:
            self._envoy = subprocess.Popen(  # noqa: ASYNC220
                [
                    ENVOY,
                    "-c",
                    bootstrap,
                    "--concurrency",
                    "2",
                    "--disable-hot-restart",
                    "-l",
                    "warning",
                ],
                env=os.environ | {"ENVOY_DYNAMIC_MODULES_SEARCH_PATH": str(LIBRARY.parent)},
                stdout=log,
                stderr=log,
            )
        for _ in range(500):
            if self._envoy.poll() is not None:
                raise AssertionError(f"Envoy exited:\n{self.log}")
            with contextlib.suppress(OSError):
                socket.create_connection((SERVER, self.port), 1).close()
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"Envoy does not listen:\n{self.log}")

    def stop(self) -> int | None:
        """Ends Envoy; its exit status."""
        if self._envoy is None:
            return None
        self._envoy.terminate()
        try:
            return self._envoy.wait(10)
        except subprocess.TimeoutExpired:
            self._envoy.kill()
            return self._envoy.wait(10)
        finally:
            self._envoy = None


def _cluster(
    name: str, port: int, protocol: dict[str, Any], filters: list[dict[str, Any]]
) -> dict[str, Any]:
    endpoint = {"address": {"socket_address": {"address": BACKEND, "port_value": port or 1}}}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3"
                ".HttpProtocolOptions",
                "explicit_http_config": protocol,
                "http_filters": filters,
            }
        },
    }


async def http_backend(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers each request with its method and path; upgrades become an echo."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            if "upgrade: websocket" in head.lower():
                writer.write(
                    b"HTTP/1.1 101 Switching Protocols\r\n"
                    b"connection: upgrade\r\nupgrade: websocket\r\n\r\n"
                )
                while data := await reader.read(1024):
                    writer.write(data)
                break
            body = " ".join(head.split(" ")[:2]).encode()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    writer.close()


class _Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]
    def service(self, _details: grpc.HandlerCallDetails) -> Any:
        async def echo(request: bytes, _context: Any) -> bytes:
            return request

        return grpc.unary_unary_rpc_method_handler(echo)


async def grpc_backend(port: int) -> grpc.aio.Server:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(),))
    server.add_insecure_port(f"{BACKEND}:{port}")
    await server.start()
    return server


@contextlib.asynccontextmanager
async def rig(folder: Path, **options: Any) -> AsyncIterator[Rig]:
    """An Envoy that listens, its agent and its backends; the server is endpoint SERVER_ID."""
    ipcache = IpCache(folder / "bpf")
    agent = await Agent(folder / "xds.sock").start()
    web = await asyncio.start_server(http_backend, BACKEND, 0)
    grpc_port = free_port(BACKEND)
    grpc_server = await grpc_backend(grpc_port)
    made = Rig(
        folder,
        ipcache,
        agent,
        backend_port=web.sockets[0].getsockname()[1],
        grpc_port=grpc_port,
        **options,
    )
    ipcache.put(CLIENT, CLIENT_IDENTITY)
    ipcache.put(SERVER, SERVER_IDENTITY, SERVER_ID)
    try:
        await made.start()
        yield made
    finally:
        made.stop()
        await agent.stop()
        await grpc_server.stop(0)
        web.close()
        ipcache.close()


def endpoint_policy(
    *rules: pb.HttpRule,
    revision: int = 1,
    endpoint_id: int = SERVER_ID,
    peers: tuple[int, ...] = (CLIENT_IDENTITY,),
    direction: str = "ingress",
    **fields: Any,
) -> pb.EndpointPolicy:
    """A policy whose one rule lets `peers` do what any of `rules` says, on any port."""
    rule = pb.PortRule(peers=peers, rule="cnp/test/rule", http=pb.HttpRules(rules=rules))
    one_way = pb.DirectionPolicy(enforced=True, rules=[rule], **fields)
    return pb.EndpointPolicy(
        endpoint_id=endpoint_id,
        identity=SERVER_IDENTITY,
        revision=revision,
        **{direction: one_way},
    )


def get(path: str) -> pb.HttpRule:
    return pb.HttpRule(method="GET", path=path)


@contextlib.contextmanager
def connection(port: int, source: str = CLIENT) -> Iterator[socket.socket]:
    with socket.create_connection((SERVER, port), 5, source_address=(source, 0)) as client:
        client.settimeout(5)
        yield client
