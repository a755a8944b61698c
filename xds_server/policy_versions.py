"""Versions of the policy protocol, and what a module that speaks an older one is told.

Sidecars keep their module for as long as their pod lives. Fields are only ever added, and a module
leaves out what it does not know: so whatever a field narrows has to be taken away from the policy
of a module that would read it as wider (docs/adr/0016).
"""

from __future__ import annotations

from importlib.metadata import version

from sidegate_api.policy.v1 import policy_pb2 as pb

PROTOCOL_VERSION = 2
OLDEST_VERSION = max(1, PROTOCOL_VERSION - 2)

_AUTHENTICATION = 2
"""The first version that knows ``PortRule.authentication``."""


def refusal(hello: pb.Hello) -> str | None:
    """Why a module of this version is not served; None where it is."""
    spoken = hello.protocol_version
    if OLDEST_VERSION <= spoken <= PROTOCOL_VERSION:
        return None
    newer = spoken > PROTOCOL_VERSION
    remedy = "upgrade the agent before the module" if newer else "restart the pod for a new module"
    return (
        f"Hello.protocol_version {spoken}: this agent speaks {OLDEST_VERSION} to "
        f"{PROTOCOL_VERSION}: {remedy}"
    )


def skew(hello: pb.Hello) -> str:
    """What a module is behind this agent; empty where they are of one version."""
    of_module = (hello.module_version, hello.protocol_version)
    of_agent = (version("sidegate"), PROTOCOL_VERSION)
    if of_module == of_agent:
        return ""
    return "module {} (protocol {}), agent {} (protocol {})".format(*of_module, *of_agent)


def as_understood(policy: pb.EndpointPolicy, spoken: int) -> pb.EndpointPolicy:
    """The policy for a module of this protocol version: never wider than it is meant."""
    directions = (policy.ingress, policy.egress)
    if spoken >= _AUTHENTICATION or not any(r.authentication for d in directions for r in d.rules):
        return policy
    narrowed = pb.EndpointPolicy()
    narrowed.CopyFrom(policy)
    for direction in (narrowed.ingress, narrowed.egress):
        for rule in direction.rules:
            if rule.authentication:
                rule.deny = True  # the module would take it for one that asks for nothing
                rule.ClearField("l7")
    return narrowed
