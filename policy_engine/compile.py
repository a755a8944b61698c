"""Port rules to the entries of the kernel's policy map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policy_engine.model import (
    ANY_IDENTITY,
    ANY_PORT,
    PRECEDENCE,
    Action,
    Direction,
    DirectionPolicy,
    PolicyEntry,
    PolicyKey,
    PortRule,
)

PORT_BITS = 16
_PORTS = 1 << PORT_BITS


def entries_of(
    ingress: DirectionPolicy, egress: DirectionPolicy
) -> Mapping[PolicyKey, PolicyEntry]:
    """The union of both directions. Rules on one key merge by :data:`PRECEDENCE`.

    Two L7 protocols on one key cannot both be right: a REDIRECT to no parser.
    """
    made: dict[PolicyKey, PolicyEntry] = {}
    for direction, policy in ((Direction.INGRESS, ingress), (Direction.EGRESS, egress)):
        for rule in policy.rules:
            action = _action(rule)
            parser = rule.parser if action is Action.REDIRECT else None
            entry = PolicyEntry(action, parser, (rule.origin,))
            for key in _keys(direction, rule):
                other = made.get(key)
                made[key] = entry if other is None else _merge(other, entry)
    return made


def _action(rule: PortRule) -> Action:
    if rule.deny:
        return Action.DENY
    if rule.authentication:
        return Action.AUTHENTICATE
    return Action.ALLOW if rule.parser is None else Action.REDIRECT


def _keys(direction: Direction, rule: PortRule) -> Iterable[PolicyKey]:
    blocks = tuple(port_blocks(rule.port, rule.end_port))
    for identity in (ANY_IDENTITY,) if rule.peers is None else rule.peers:
        for port, bits in blocks:
            yield PolicyKey(direction, identity, rule.protocol, port, bits)


def port_blocks(first: int, last: int) -> Iterable[tuple[int, int]]:
    """Blocks (port, leading bits that count) that make up a range; ``last`` 0 is ``first`` alone.

    At most 30, as with prefixes of addresses.
    """
    if first == ANY_PORT and last == 0:
        yield ANY_PORT, 0
        return
    last = last or first
    while first <= last:
        size = first & -first or _PORTS
        while first + size - 1 > last:
            size //= 2
        yield first, PORT_BITS - size.bit_length() + 1
        first += size


def ports_text(port: int, bits: int) -> str:
    """``any``, a number, or ``first-last`` of a block."""
    if bits == PORT_BITS:
        return str(port)
    return "any" if bits == 0 else f"{port}-{port + (_PORTS >> bits) - 1}"


def _merge(one: PolicyEntry, other: PolicyEntry) -> PolicyEntry:
    origins = one.origins + tuple(o for o in other.origins if o not in one.origins)
    if one.action is other.action:
        parser = one.parser if one.parser is other.parser else None
        return PolicyEntry(one.action, parser, origins)
    winner = min(one, other, key=lambda entry: PRECEDENCE.index(entry.action))
    return PolicyEntry(winner.action, winner.parser, origins)
