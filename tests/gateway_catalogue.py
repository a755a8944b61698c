"""One of everything that the IR can say, for tests of what it becomes."""

from __future__ import annotations

from typing import Any

import trustme

from gateway_translator.ir import (
    Backends,
    Certificate,
    ClientValidation,
    Cluster,
    Cors,
    Delta,
    DownstreamTls,
    Endpoint,
    EndpointGroup,
    EndpointSet,
    ExternalAuth,
    FilterChain,
    Forward,
    HeaderChanges,
    HttpAction,
    HttpHandler,
    HttpMatch,
    HttpRoute,
    Listener,
    MeshFrontend,
    MeshView,
    Mirror,
    ObjectRef,
    PathChange,
    PathKind,
    PathMatch,
    Protocol,
    Redirect,
    Retry,
    Rewrite,
    RouteTable,
    SessionPersistence,
    Timeouts,
    Transport,
    TrustBundle,
    UpstreamTls,
    ValueMatch,
    VirtualHost,
    WeightedBackend,
)

GATEWAY, ROUTE, SERVICE = (ObjectRef(kind, "n", "all") for kind in ("Gateway", "HTTPRoute", "S"))
CA = trustme.CA()
_LEAF = CA.issue_cert("*.test")
_CHANGES = HeaderChanges(set=(("host", "h"), ("x", "50%")), add=(("y", ""),), remove=("z",))
_CLUSTERS = (
    Cluster("http", SERVICE, 80, "some"),
    Cluster("mesh", SERVICE, 80, "mesh", transparent=True),
    Cluster("h2c", SERVICE, 81, "none", Protocol.HTTP2),
    Cluster("ws", SERVICE, 82, "some", Protocol.WEBSOCKET),
    Cluster("tls", SERVICE, 443, "some", tls=UpstreamTls("a.test", "ca")),
    Cluster(
        "mtls", SERVICE, 443, "some", Protocol.HTTP2,
        UpstreamTls("a.test", "", ("*.test",), ("spiffe://td/x",), "n/leaf"),
    ),
    Cluster("tcp", SERVICE, 90, "some", Protocol.TCP),
    Cluster("udp", SERVICE, 91, "some", Protocol.UDP),
)  # fmt: skip
_ONE, _TWO = WeightedBackend("http"), WeightedBackend("h2c", 3, _CHANGES, _CHANGES, Rewrite("b"))


def _to(**action: Any) -> HttpAction:
    return HttpAction(Backends((_ONE,)), **action)


_ACTIONS = {
    "plain": _to(),
    "weights": HttpAction(Backends((_ONE, _TWO), 2)),
    "nowhere": HttpAction(),
    "redirect": HttpAction(redirect=Redirect("https", "r", 8443, PathChange(full="/to"), 308)),
    "redirect-prefix": HttpAction(redirect=Redirect(path=PathChange(prefix="/to"), status=303)),
    "headers": _to(request_headers=_CHANGES, response_headers=_CHANGES),
    "rewrite": _to(rewrite=Rewrite("w", PathChange(full="/a\\1"))),
    "rewrite-prefix": _to(rewrite=Rewrite(path=PathChange(prefix="/p/"))),
    "mirrors": _to(mirrors=(Mirror("h2c"), Mirror("ws", 1, 3))),
    "cors": _to(cors=Cors(("https://*.a.test", "http://b", "*"), ("GET",), ("*",), ("e",), True)),
    "auth-grpc": _to(auth=ExternalAuth("h2c", True, max_body=10)),
    "auth-http": _to(auth=ExternalAuth("http", False, "/check", ("x-in",), ("x-out",))),
    "timeouts": _to(timeouts=Timeouts(2.5, 0.5), retry=Retry((500, 503), 3, 0.1)),
    "cookie": _to(session=SessionPersistence("c", False, 60, True, "/rewrite")),
    "header": _to(session=SessionPersistence("x-session", True)),
}
_MATCHES = (
    HttpMatch(PathMatch(PathKind.EXACT, "/e"), "GET"),
    HttpMatch(PathMatch(PathKind.REGEX, "/[a-z]+"), headers=(ValueMatch("h", "a|b", True),)),
    HttpMatch(PathMatch(PathKind.STRING_PREFIX, "/s"), query=(ValueMatch("Q", "1"),)),
    HttpMatch(PathMatch(PathKind.PREFIX, "/what?"), query=(ValueMatch("q", ".*", True),)),
    HttpMatch(PathMatch(PathKind.EXACT, "/pkg.Service/Method"), grpc=True),
    HttpMatch(),
)


def routes() -> tuple[HttpRoute, ...]:
    by_action = (
        HttpRoute(name, ROUTE, HttpMatch(PathMatch(PathKind.PREFIX, f"/{name}")), action)
        for name, action in _ACTIONS.items()
    )
    by_match = (
        HttpRoute(f"match/{n}", ROUTE, match, _ACTIONS["plain"]) for n, match in enumerate(_MATCHES)
    )
    return (*by_action, *by_match)


def _listener(port: int, *chains: FilterChain, **more: Any) -> Listener:
    transport = more.pop("transport", Transport.TCP)
    addresses = ("127.0.0.1", "::1")
    name = f"n/all/{port}/{transport}"
    return Listener(name, GATEWAY, addresses, port, transport, tuple(chains), **more)


def _frontend(
    port: int, producer: MeshView | None, consumers: dict[str, MeshView] | None = None
) -> MeshFrontend:
    name = f"n/all/{port}"
    return MeshFrontend(name, SERVICE, ("192.0.2.1",), port, producer, consumers or {})


def everything() -> Delta:
    handler, certificates = HttpHandler("n/all/443"), ("n/leaf",)
    strict, lenient = ClientValidation("ca"), ClientValidation("ca", optional=True)
    to_tcp = Forward(Backends((WeightedBackend("tcp", 2), WeightedBackend("tls")), 1))
    listeners = (
        _listener(18080, FilterChain("http", HttpHandler("n/all/80"))),
        _listener(
            18443,
            FilterChain("exact", handler, ("a.test",), DownstreamTls(certificates, strict)),
            FilterChain("wild", handler, ("*.test",), DownstreamTls(certificates, lenient)),
            FilterChain("pass", to_tcp, ("pass.test",), passthrough=True),
            FilterChain("any", Forward(Backends()), tls=DownstreamTls(certificates, alpn=())),
            http3=True,
        ),
        _listener(18090, FilterChain("tcp", Forward(Backends((WeightedBackend("tcp"),))))),
        _listener(
            18091,
            FilterChain(
                "udp", Forward(Backends((WeightedBackend("udp", 2), WeightedBackend("tcp")), 1))
            ),
            transport=Transport.UDP,
        ),
    )
    http = MeshView(HttpHandler("n/all/80"))
    mesh = (
        _frontend(80, http, {"of-names": MeshView(http.handler, (("a.test", to_tcp),))}),
        _frontend(90, MeshView(to_tcp)),
        _frontend(91, None, {"consumer": http}),
    )
    endpoints = EndpointGroup("n/slice", (Endpoint("127.0.0.1", 18099), Endpoint("::1", 18099)))
    tables = (RouteTable("n/all/80", 80), RouteTable("n/all/443", 443, tls=True))
    hosts = (VirtualHost("*", routes()), VirtualHost("a.test", (), 421))
    leaf = Certificate(
        "n/leaf",
        b"".join(pem.bytes() for pem in _LEAF.cert_chain_pems),
        _LEAF.private_key_pem.bytes(),
    )
    return Delta(
        listeners={each.name: each for each in listeners},
        tables={each.name: each for each in tables},
        virtual_hosts={(table.name, host.hostname): host for table in tables for host in hosts},
        clusters={each.name: each for each in _CLUSTERS},
        endpoints={
            "some": EndpointSet("some", (endpoints,)),
            "none": EndpointSet("none"),
            "mesh": EndpointSet("mesh", (endpoints,), transparent=True),
        },
        certificates={leaf.name: leaf},
        trust={"ca": TrustBundle("ca", CA.cert_pem.bytes())},
        mesh={each.name: each for each in mesh},
    )
