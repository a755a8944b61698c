"""The kernel's lookup in plain code: the same keys, the same precedence."""

from __future__ import annotations

from dataclasses import dataclass

from policy_engine.compile import PORT_BITS
from policy_engine.model import (
    ANY_IDENTITY,
    ANY_PORT,
    PRECEDENCE,
    Action,
    Direction,
    EndpointPolicy,
    Parser,
    PolicyKey,
    Protocol,
)


@dataclass(frozen=True, slots=True)
class Decision:
    """``origins`` is empty where no entry matched: a DENY unless the default is to allow."""

    action: Action
    parser: Parser | None = None
    origins: tuple[str, ...] = ()


def lookup_keys(
    direction: Direction, identity: int, protocol: Protocol, port: int
) -> tuple[PolicyKey, ...]:
    """The keys of ``policy_lookup`` in datapath/bpf/policy.h, in its order."""
    blocks = [(protocol, port & ~((1 << (PORT_BITS - bits)) - 1), bits)
              for bits in range(PORT_BITS, -1, -1)]  # fmt: skip
    return tuple(
        PolicyKey(direction, who, proto, number, bits)
        for who in (identity, ANY_IDENTITY)
        for proto, number, bits in [*blocks, (Protocol.ANY, ANY_PORT, 0)]
    )


def decide(
    policy: EndpointPolicy, direction: Direction, identity: int, protocol: Protocol, port: int
) -> Decision:
    """The verdict of an enforced direction; audit mode is the caller's to add."""
    found = [
        entry
        for key in lookup_keys(direction, identity, protocol, port)
        if (entry := policy.entries.get(key)) is not None
    ]
    if not found:
        default_allow = policy.direction(direction).default_allow
        return Decision(Action.ALLOW if default_allow else Action.DENY)
    action = min((entry.action for entry in found), key=PRECEDENCE.index)
    chosen = [entry for entry in found if entry.action is action]
    origins = tuple(dict.fromkeys(origin for entry in chosen for origin in entry.origins))
    parser = chosen[0].parser
    if action is Action.REDIRECT and (parser is None or any(e.parser != parser for e in chosen)):
        return Decision(Action.DENY, None, origins)  # two L7 protocols cannot both be right
    return Decision(action, parser, origins)
