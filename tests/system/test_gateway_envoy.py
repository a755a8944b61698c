"""The listener IR on a real Envoy: what is served, and what a change of one thing costs."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme

from gateway_translator.ir import (
    Backends,
    Certificate,
    Cluster,
    Delta,
    DownstreamTls,
    Endpoint,
    EndpointGroup,
    EndpointSet,
    FilterChain,
    Forward,
    HeaderChanges,
    HttpAction,
    HttpHandler,
    HttpMatch,
    HttpRoute,
    Listener,
    ObjectRef,
    PathChange,
    PathKind,
    PathMatch,
    Protocol,
    Redirect,
    Rewrite,
    RouteTable,
    Transport,
    VirtualHost,
    WeightedBackend,
)
from policy_engine.model import DirectionPolicy, EndpointPolicy
from sandbox.images import http_peer
from tests.gateway_catalogue import everything
from tests.system.envoy_rig import Node, eventually, node
from xds_server.gateway.render import Renderer
from xds_server.server import XdsServer

pytestmark = pytest.mark.system

GATEWAY, ROUTE, SERVICE = (ObjectRef(kind, "shop", "web") for kind in ("Gateway", "HTTPRoute", "S"))
BACKEND_PORT, HTTP_PORT, TLS_PORT = 18070, 18000, 18443
CLUSTER = Cluster("shop/web/80", SERVICE, 80, "shop/web/80")


def endpoint_set(*ports: int) -> EndpointSet:
    found = tuple(Endpoint("127.0.0.1", port) for port in ports)
    return EndpointSet("shop/web/80", (EndpointGroup("shop/web-1", found),))


def to_backend(**action: Any) -> HttpAction:
    return HttpAction(backends=Backends((WeightedBackend(CLUSTER.name),)), **action)


def routed(*actions: tuple[str, HttpAction]) -> tuple[HttpRoute, ...]:
    """By path prefix."""
    return tuple(
        HttpRoute(f"r/{n}", ROUTE, HttpMatch(PathMatch(PathKind.PREFIX, path)), action)
        for n, (path, action) in enumerate(actions)
    )


def gateway(*hosts: VirtualHost, chain: FilterChain | None = None, port: int = HTTP_PORT) -> Delta:
    table = RouteTable(f"shop/web/{port}", port, chain is not None)
    chain = chain or FilterChain("http", HttpHandler(table.name))
    listener = Listener(
        f"shop/web/{port}/tcp", GATEWAY, ("127.0.0.1",), port, Transport.TCP, (chain,)
    )
    return Delta(
        listeners={listener.name: listener},
        tables={table.name: table},
        virtual_hosts={(table.name, host.hostname): host for host in hosts},
        clusters={CLUSTER.name: CLUSTER},
        endpoints={CLUSTER.endpoints: endpoint_set(BACKEND_PORT)},
    )


@pytest.fixture(scope="module", autouse=True)
def backend() -> Iterator[None]:
    serving = subprocess.Popen([str(http_peer()), "serve", "--http", f"127.0.0.1:{BACKEND_PORT}"])
    yield
    serving.kill()
    serving.wait()


@pytest.fixture
async def envoy() -> AsyncIterator[Node]:
    async with node(Path(tempfile.mkdtemp(prefix="sgw"))) as made:
        await made.server.start()
        await made.supervisor.start()
        yield made


class Client:
    """Asks until the gateway answers at all."""

    def __init__(self, port: int = HTTP_PORT) -> None:
        self._base = f"http://127.0.0.1:{port}"

    async def get(self, path: str, host: str = "a.test") -> httpx.Response:
        async with httpx.AsyncClient() as client:
            for _ in range(200):
                try:
                    return await client.get(f"{self._base}{path}", headers={"host": host})
                except httpx.TransportError:
                    await asyncio.sleep(0.05)
        raise AssertionError("no answer")


async def test_routes_of_a_host(envoy: Node) -> None:
    routes = routed(
        ("/plain", to_backend()),
        ("/new", to_backend(rewrite=Rewrite("b.test", PathChange(prefix="/")))),
        ("/told", to_backend(response_headers=HeaderChanges(set=(("x-said", "100%"),)))),
        ("/away", HttpAction(redirect=Redirect("https", "c.test", 8443, PathChange(prefix="/x")))),
        ("/broken", HttpAction()),
    )
    envoy.server.update_resources(Renderer().render(gateway(VirtualHost("*.test", routes))))
    client = Client()
    plain = await client.get("/plain")
    assert plain.status_code == 200
    assert plain.json()["path"] == "/plain"
    new = (await client.get("/new/thing")).json()
    assert (new["path"], new["host"]) == ("/thing", "b.test")
    assert (await client.get("/told")).headers["x-said"] == "100%"
    away = await client.get("/away/y?q=1")
    assert away.status_code == 302
    assert away.headers["location"] == "https://c.test:8443/x/y?q=1"
    assert (await client.get("/broken")).status_code == 500
    assert (await client.get("/plainly")).status_code == 404
    assert (await client.get("/plain", "other.example")).status_code == 404


async def test_envoy_takes_one_of_everything(envoy: Node) -> None:
    envoy.server.update_resources(Renderer(("127.0.0.1", "::1")).render(everything()))
    await eventually(
        lambda: all(
            each["acknowledged"] or each["errors"] for each in envoy.server.status()["resources"]
        )
    )
    errors = {r["name"]: e for r in envoy.server.status()["resources"] if (e := r["errors"])}
    assert errors == {}
    await Client(18080).get("/plain")  # it is served, not only taken


async def test_one_changed_route_sends_one_virtual_host(envoy: Node) -> None:
    hosts = [VirtualHost(f"h{n}.test", routed(("/", HttpAction()))) for n in range(300)]
    renderer = Renderer()
    envoy.server.update_resources(renderer.render(gateway(*hosts)))
    client = Client()
    assert (await client.get("/", "h7.test")).status_code == 500
    sent = envoy.server.counters["xds_responses"]
    host = VirtualHost("h7.test", routed(("/", to_backend())))
    changed = Delta(virtual_hosts={(f"shop/web/{HTTP_PORT}", host.hostname): host})
    envoy.server.update_resources(renderer.render(changed))
    for _ in range(500):
        if (await client.get("/", "h7.test")).status_code == 200:
            break
    assert envoy.server.counters["xds_responses"] == sent + 1
    assert (await client.get("/", "h8.test")).status_code == 500


async def test_hosts_that_were_there_before_their_listener(envoy: Node) -> None:
    renderer = Renderer()
    host = VirtualHost("a.test", routed(("/", HttpAction())))
    envoy.server.update_resources(renderer.render(gateway(host)))
    assert (await Client().get("/")).status_code == 500
    later = gateway(host, port=HTTP_PORT + 1)
    envoy.server.update_resources(renderer.render(replace(later, listeners={})))
    envoy.server.update_resources(renderer.render(Delta(listeners=later.listeners)))
    assert (await Client(HTTP_PORT + 1).get("/")).status_code == 500


async def test_an_agent_that_comes_back_sends_the_host_that_changed(envoy: Node) -> None:
    before = [VirtualHost(f"{name}.test", routed(("/", HttpAction()))) for name in "ab"]
    envoy.server.update_resources(Renderer().render(gateway(*before)))
    client = Client()
    assert (await client.get("/", "a.test")).status_code == 500
    await envoy.server.stop()
    after = VirtualHost("a.test", routed(("/", to_backend())))
    envoy.server = XdsServer(envoy.folder / "xds.sock", lambda _: None)
    envoy.server.update_resources(Renderer().render(gateway(after, before[1])))
    await envoy.server.start()
    for _ in range(500):
        if (await client.get("/", "a.test")).status_code == 200:
            break
        await asyncio.sleep(0.02)
    assert (await client.get("/", "a.test")).status_code == 200
    assert (await client.get("/", "b.test")).status_code == 500


class Datagrams(asyncio.DatagramProtocol):
    """Answers each with ``says``; None: counts them in ``seen``."""

    def __init__(self, seen: Counter[bytes], says: bytes | None = None) -> None:
        self._seen, self._says = seen, says

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        if self._says:
            self._transport.sendto(self._says, address)
        else:
            self._seen[data] += 1


async def test_datagrams_by_weight(envoy: Node) -> None:
    loop, seen, asked = asyncio.get_running_loop(), Counter[bytes](), 400
    clusters, sets, backends = {}, {}, []
    for name, port, weight in (("one", 18081, 2), ("two", 18082, 1)):
        answering = partial(Datagrams, seen, name.encode())
        await loop.create_datagram_endpoint(answering, ("127.0.0.1", port))
        clusters[name] = Cluster(name, SERVICE, port, name, Protocol.UDP)
        sets[name] = EndpointSet(name, (EndpointGroup(name, (Endpoint("127.0.0.1", port),)),))
        backends.append(WeightedBackend(name, weight))
    chain = FilterChain("udp", Forward(Backends(tuple(backends), invalid_weight=1)))
    listener = Listener("shop/web/53/udp", GATEWAY, ("127.0.0.1",), 18053, Transport.UDP, (chain,))
    made = Delta(listeners={listener.name: listener}, clusters=clusters, endpoints=sets)
    envoy.server.update_resources(Renderer().render(made))

    async def ask() -> None:
        """From a port of its own."""
        transport, _ = await loop.create_datagram_endpoint(
            partial(Datagrams, seen), remote_addr=("127.0.0.1", 18053)
        )
        transport.sendto(b"?")
        loop.call_later(10, transport.close)

    while not seen:  # until it serves
        await ask()
        await asyncio.sleep(0.05)
    seen.clear()
    for _ in range(asked):
        await ask()
    await eventually(lambda: seen.total() > asked // 2)
    await asyncio.sleep(1)  # for answers that must not come
    assert seen[b"one"] == pytest.approx(asked / 2, abs=50)
    assert seen[b"two"] == pytest.approx(asked / 4, abs=50)


async def test_tls_ends_by_server_name_and_its_certificate_is_exchanged(envoy: Node) -> None:
    ca = trustme.CA()
    context = ssl.create_default_context()
    ca.configure_trust(context)

    def issued() -> Certificate:
        leaf = ca.issue_cert("a.test")
        chain = b"".join(pem.bytes() for pem in leaf.cert_chain_pems)
        return Certificate("shop/leaf", chain, leaf.private_key_pem.bytes())

    async def seen() -> int:
        """The serial number of the certificate that is shown."""
        for _ in range(200):
            try:
                _, writer = await asyncio.open_connection(
                    "127.0.0.1", TLS_PORT, ssl=context, server_hostname="a.test"
                )
            except OSError:
                await asyncio.sleep(0.05)
                continue
            found = writer.get_extra_info("ssl_object").getpeercert()
            writer.close()
            return int(found["serialNumber"], 16)
        raise AssertionError("no TLS")

    chain = FilterChain(
        "https", HttpHandler(f"shop/web/{TLS_PORT}"), ("a.test",), DownstreamTls(("shop/leaf",))
    )
    renderer = Renderer()
    made = gateway(VirtualHost("a.test"), chain=chain, port=TLS_PORT)
    envoy.server.update_resources(renderer.render(made))
    envoy.server.update_resources(renderer.render(Delta(certificates={"shop/leaf": issued()})))
    first = await seen()
    envoy.server.update_resources(renderer.render(Delta(certificates={"shop/leaf": issued()})))
    for _ in range(500):
        if await seen() != first:
            break
    assert await seen() != first
    with pytest.raises((OSError, ssl.SSLError)):
        await asyncio.open_connection(
            "127.0.0.1", TLS_PORT, ssl=context, server_hostname="other.test"
        )


async def test_a_backend_whose_policy_is_not_known_yet_is_asked_nothing(envoy: Node) -> None:
    """An endpoint of this node; what is none of its is another node's to judge."""
    host = VirtualHost("*.test", routed(("/", to_backend())))
    envoy.server.update_resources(Renderer().render(gateway(host)))
    client = Client()
    assert (await client.get("/plain")).status_code == 200
    envoy.ipcache.put("127.0.0.1", 1002, endpoint_id=7)
    denied = await client.get("/plain")
    assert denied.status_code == 403
    assert "no policy yet" in denied.text
    envoy.server.publish_policy(
        EndpointPolicy(7, 1002, DirectionPolicy(), DirectionPolicy(), {}, revision=1)
    )
    assert await envoy.server.policy_acknowledged(7, 1, 10)
    assert (await client.get("/plain")).status_code == 200
    await eventually(lambda: envoy.verdicts)
    assert {each.source_identity for each in envoy.verdicts} == {8}
    assert {bytes(each.source_address) for each in envoy.verdicts} == {b"\x7f\0\0\1"}
