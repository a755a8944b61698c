"""``policy trace``: the verdict for a connection that need not exist, and the rules that made it.

L3/L4 is decided over the very entries that the kernel's map holds, L7 by the very crate that runs
inside Envoy (:mod:`l7_proxy_ext.rules`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from policy_engine.model import Action, Direction, EndpointPolicy, Protocol
from policy_engine.trace import decide


class BadTrace(ValueError):
    """A question that cannot be answered; the message names the field and the remedy."""


@dataclass(frozen=True, slots=True)
class Peer:
    """One end of the traced connection; ``policy`` None unless it is an endpoint of this node.

    ``certificate``: it shows that of the workload at its address. ``sidecar``: a proxy of its own
    judges for it, which sees the other end's.
    """

    name: str
    identity: int
    policy: EndpointPolicy | None = None
    certificate: bool = False
    sidecar: bool = False


# (policy, direction, peer, port, request or None) -> (verdict, reason, rule)
L7Judge = Callable[
    [EndpointPolicy, Direction, Peer, int, Mapping[str, Any] | None], tuple[str, str, str]
]


def trace(
    source: Peer,
    destination: Peer,
    protocol: Protocol,
    port: int,
    request: Mapping[str, Any] | None,
    judge: L7Judge,
) -> dict[str, Any]:
    """Both ends in the order of the datapath: egress of the source, ingress of the destination."""
    steps: list[dict[str, Any]] = []
    for end, peer, direction in (
        (source, destination, Direction.EGRESS),
        (destination, source, Direction.INGRESS),
    ):
        if end.policy is not None:
            steps += _one_end(end, end.policy, peer, direction, protocol, port, request, judge)
            if steps[-1]["verdict"] == "denied":
                break
    if not steps:
        raise BadTrace("from, to: at least one of them must be an endpoint of this node")
    verdicts = {step["verdict"] for step in steps}
    for verdict in ("denied", "audit"):
        if verdict in verdicts:
            return {"verdict": verdict, "steps": steps}
    return {"verdict": "allowed", "steps": steps}


def _one_end(
    end: Peer,
    policy: EndpointPolicy,
    peer: Peer,
    direction: Direction,
    protocol: Protocol,
    port: int,
    request: Mapping[str, Any] | None,
    judge: L7Judge,
) -> list[dict[str, Any]]:
    step = {"endpoint": end.name, "direction": direction.name.lower()}
    own = policy.direction(direction)
    if not own.enforced:
        return [
            {**step, "layer": "L3/L4", "verdict": "allowed", "reason": "not enforced", "rules": []}
        ]
    decision = decide(policy, direction, peer.identity, protocol, port)
    rules = list(decision.origins)
    if decision.action is Action.DENY:
        verdict = "audit" if own.audit else "denied"
        reason = "deny rule" if rules else "no rule allows it"
        return [{**step, "layer": "L3/L4", "verdict": verdict, "reason": reason, "rules": rules}]
    if decision.action is Action.ALLOW:
        return [{**step, "layer": "L3/L4", "verdict": "allowed", "reason": "rule", "rules": rules}]
    judging = f"to the {decision.parser} listener"
    if decision.action is Action.AUTHENTICATE:
        if not end.sidecar:
            verdict = "audit" if own.audit else "denied"
            reason = (
                "authentication: nobody sees a certificate here, the pod has no sidecar of ours"
            )
            return [
                {**step, "layer": "L3/L4", "verdict": verdict, "reason": reason, "rules": rules}
            ]
        judging = "to the pod's sidecar, which sees the certificate"
    redirected = {
        **step,
        "layer": "L3/L4",
        "verdict": "redirected",
        "reason": judging,
        "rules": rules,
    }
    if decision.parser and (request is None or request.get("kind") != decision.parser.value):
        verdict = "audit" if own.audit else "denied"
        asked = f"this port speaks {decision.parser}; give --{decision.parser} to trace a request"
        return [
            redirected,
            {**step, "layer": "L7", "verdict": verdict, "reason": asked, "rules": []},
        ]
    verdict, reason, rule = judge(policy, direction, peer, port, request)
    return [
        redirected,
        {
            **step,
            "layer": "L7",
            "verdict": verdict,
            "reason": reason,
            "rules": [rule] if rule else [],
        },
    ]
