"""What Gateway API and Ingress resources mean for a proxy, in no proxy's words.

The seam between this room and ``xds_server``. Everything is frozen; what did not change between
two translations is the same object (``is``), so a reader may keep what it built by identity.
Every reference is a name that :class:`~gateway_translator.ir.snapshot.Snapshot` resolves.
Durations are seconds.
"""

from __future__ import annotations

from gateway_translator.ir.backend import (
    Backends,
    Cluster,
    Endpoint,
    EndpointGroup,
    EndpointSet,
    Protocol,
    UpstreamTls,
    WeightedBackend,
)
from gateway_translator.ir.filters import (
    Cors,
    ExternalAuth,
    HeaderChanges,
    Mirror,
    PathChange,
    Redirect,
    Rewrite,
)
from gateway_translator.ir.http import (
    HttpAction,
    HttpRoute,
    Retry,
    RouteTable,
    SessionPersistence,
    Timeouts,
    VirtualHost,
)
from gateway_translator.ir.listener import (
    FilterChain,
    Forward,
    HttpHandler,
    Listener,
    MeshFrontend,
    MeshView,
    Transport,
)
from gateway_translator.ir.match import HttpMatch, PathKind, PathMatch, ValueMatch
from gateway_translator.ir.names import InvalidIRError, ObjectRef
from gateway_translator.ir.snapshot import Delta, Snapshot
from gateway_translator.ir.tls import Certificate, ClientValidation, DownstreamTls, TrustBundle

__all__ = [
    "Backends",
    "Certificate",
    "ClientValidation",
    "Cluster",
    "Cors",
    "Delta",
    "DownstreamTls",
    "Endpoint",
    "EndpointGroup",
    "EndpointSet",
    "ExternalAuth",
    "FilterChain",
    "Forward",
    "HeaderChanges",
    "HttpAction",
    "HttpHandler",
    "HttpMatch",
    "HttpRoute",
    "InvalidIRError",
    "Listener",
    "MeshFrontend",
    "MeshView",
    "Mirror",
    "ObjectRef",
    "PathChange",
    "PathKind",
    "PathMatch",
    "Protocol",
    "Redirect",
    "Retry",
    "Rewrite",
    "RouteTable",
    "SessionPersistence",
    "Snapshot",
    "Timeouts",
    "Transport",
    "TrustBundle",
    "UpstreamTls",
    "ValueMatch",
    "VirtualHost",
    "WeightedBackend",
]
