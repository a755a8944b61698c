"""A TLSRoute, TCPRoute or UDPRoute to the backends of its one rule."""

from __future__ import annotations

from gateway_translator.backends import BackendResolver, Use
from gateway_translator.compiled import (
    CompiledRoute,
    InvalidRuleError,
    resolved_refs,
    rule_conditions,
)
from gateway_translator.ir import Backends, WeightedBackend
from gateway_translator.resources.routes import StreamRoute
from gateway_translator.world import Reader


def compile_stream(route: StreamRoute, reader: Reader, mesh: bool = False) -> CompiledRoute:
    """Nothing in a connection tells rules apart: there is one, others are an error. ``mesh``: for
    clients of a Service."""
    backends = BackendResolver(
        route.key, reader, mesh=route.spec.services(route.namespace) if mesh else None
    )
    use: Use = "udp" if route.kind == "UDPRoute" else "tcp"
    problems: list[tuple[int, InvalidRuleError]] = []
    if not route.spec.rules:
        problems.append((0, InvalidRuleError("there is none; give backendRefs")))
    for number in range(1, len(route.spec.rules)):
        problems.append((number, InvalidRuleError("only the first rule takes traffic")))
    if refusal := reader.refusal(route.key):
        problems.append((0, InvalidRuleError(f"the proxy refuses it: {refusal}")))
    valid: list[WeightedBackend] = []
    invalid = 0
    for ref in route.spec.rules[0].backend_refs if route.spec.rules else ():
        cluster = backends.cluster(ref, use)
        if cluster is None:
            invalid += ref.weight
        elif ref.weight:
            valid.append(WeightedBackend(cluster, ref.weight))
    accepted, partially = rule_conditions(problems, max(1, len(route.spec.rules)))
    return CompiledRoute(
        route.key,
        route.age,
        route.spec.hostnames,
        backends=Backends(tuple(valid), invalid),
        clusters=backends.clusters,
        resolved=resolved_refs(backends.problems),
        accepted=accepted,
        partially=partially,
    )
