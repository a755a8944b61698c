"""Pods, services and policies of the mesh that is measured. Pure.

There are two pairs of pods, each a client and a server with sidecars: OURS has the module, PLAIN is
Istio's own. Both exist at one moment, so that what a machine takes away falls on both alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from bench.rig import policy

Pair = Literal["ours", "plain"]
PAIRS: tuple[Pair, Pair] = ("ours", "plain")
PATH = "/v1/orders"
OTHER = "/v1/denied"
_CILIUM_MAX, _ISTIO_MAX = 100, 500
STRICT: dict[str, Any] = {
    "apiVersion": "security.istio.io/v1",
    "kind": "PeerAuthentication",
    "metadata": {"name": "strict"},
    "spec": {"mtls": {"mode": "STRICT"}},
}


def client(pair: Pair) -> str:
    return f"client-{pair}"


def server(pair: Pair) -> str:
    return f"server-{pair}"


def pods(pair: Pair) -> list[dict[str, Any]]:
    """A client, and a server with its Service."""
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": server(pair)},
        "spec": {"selector": {"app": server(pair)}, "ports": [{"name": "http", "port": 8080}]},
    }
    accounts = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}
        for name in (client(pair), server(pair))
    ]
    return [service, *accounts, _pod(client(pair), pair, client(pair), "client"), backend(pair)]


def backend(pair: Pair, name: str = "") -> dict[str, Any]:
    """One of the server's pods; the first has the server's own name."""
    return _pod(name or server(pair), pair, server(pair), "http")


def _pod(name: str, pair: Pair, app: str, image: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": {"app": app}}
    if pair == "plain":  # injected as by an Istio that knows nothing of us
        metadata["annotations"] = {"inject.istio.io/templates": "sidecar"}
    container = {"name": "app", "image": f"sidegate.test/{image}"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"serviceAccountName": app, "containers": [container]},
    }


def paths(rules: int) -> list[str]:
    """As many as there are rules; the one that is asked for is the last, so that all are looked at
    where rules are looked at one by one."""
    return [*(f"/v1/others/{number:04}" for number in range(rules - 1)), PATH]


def policies(
    pair: Pair, allowed: Sequence[str], name: str = "bench", app: str = ""
) -> list[dict[str, Any]]:
    """GET of these paths by the pair's client: a CiliumNetworkPolicy for our pair, the same as
    AuthorizationPolicies for the other. For the pair's server unless another ``app`` is named."""
    app = app or server(pair)
    if pair == "ours":
        return [_cilium(allowed, client(pair), name, app)]
    return [
        _istio(some, client(pair), f"{name}-{first}", app)
        for first, some in _pieces(allowed, _ISTIO_MAX)
    ]


def _pieces(paths: Sequence[str], most: int) -> Iterator[tuple[int, Sequence[str]]]:
    """As the schemas allow so many rules in one place."""
    return ((first, paths[first : first + most]) for first in range(0, len(paths), most))


def _cilium(allowed: Sequence[str], peer: str, name: str, app: str) -> dict[str, Any]:
    made = policy(name, app, peer)
    (rule,) = made["spec"]["ingress"]
    (ports,) = rule["toPorts"]
    rule["toPorts"] = [
        {**ports, "rules": {"http": [{"method": "GET", "path": path} for path in some]}}
        for _, some in _pieces(allowed, _CILIUM_MAX)
    ]
    return made


def _istio(allowed: Sequence[str], peer: str, name: str, app: str) -> dict[str, Any]:
    principals = [f"cluster.local/ns/default/sa/{peer}"]
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": app}},
            "action": "ALLOW",
            "rules": [
                {
                    "from": [{"source": {"principals": principals}}],
                    "to": [{"operation": {"methods": ["GET"], "paths": [path]}}],
                }
                for path in allowed
            ],
        },
    }
