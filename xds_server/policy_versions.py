"""Versions of the policy protocol, and what a module that speaks an older one is told.

Sidecars keep their module for as long as their pod lives. Fields are only ever added, and a module
leaves out what it does not know: so whatever a field narrows has to be taken away from the policy
of a module that would read it as wider (docs/adr/0017).
"""

from __future__ import annotations

from sidegate_api.policy.v1 import policy_pb2 as pb

PROTOCOL_VERSION = 2
OLDEST_VERSION = max(1, PROTOCOL_VERSION - 2)

_AUTHENTICATION = 2
"""The first version that knows ``PortRule.authentication``."""


def refusal(hello: pb.Hello) -> str | None:
    """Why a module of this version is not served; None where it is."""
    version = hello.protocol_version
    if OLDEST_VERSION <= version <= PROTOCOL_VERSION:
        return None
    newer = version > PROTOCOL_VERSION
    remedy = "upgrade the agent before the module" if newer else "restart the pod for a new module"
    return (
        f"Hello.protocol_version {version}: this agent speaks {OLDEST_VERSION} to "
        f"{PROTOCOL_VERSION}: {remedy}"
    )


def as_understood(policy: pb.EndpointPolicy, version: int) -> pb.EndpointPolicy:
    """The policy for a module that speaks ``version``: never wider than it is meant."""
    directions = (policy.ingress, policy.egress)
    if version >= _AUTHENTICATION or not any(r.authentication for d in directions for r in d.rules):
        return policy
    narrowed = pb.EndpointPolicy()
    narrowed.CopyFrom(policy)
    for direction in (narrowed.ingress, narrowed.egress):
        for rule in direction.rules:
            if rule.authentication:
                rule.deny = True  # the module would take it for one that asks for nothing
                rule.ClearField("l7")
    return narrowed
