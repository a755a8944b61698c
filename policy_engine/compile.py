"""Port rules to the entries of the kernel's policy map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policy_engine.model import (
    ANY_IDENTITY,
    Action,
    Direction,
    DirectionPolicy,
    PolicyEntry,
    PolicyKey,
    PortRule,
)


def entries_of(
    ingress: DirectionPolicy, egress: DirectionPolicy
) -> Mapping[PolicyKey, PolicyEntry]:
    """The union of both directions. Two rules on one key merge: DENY, then ALLOW, then REDIRECT.

    Two L7 protocols on one key cannot both be right, so nothing passes there: DENY.
    """
    made: dict[PolicyKey, PolicyEntry] = {}
    for direction, policy in ((Direction.INGRESS, ingress), (Direction.EGRESS, egress)):
        for rule in policy.rules:
            entry = PolicyEntry(_action(rule), rule.parser, (rule.origin,))
            for key in _keys(direction, rule):
                other = made.get(key)
                made[key] = entry if other is None else _merge(other, entry)
    return made


def _action(rule: PortRule) -> Action:
    if rule.deny:
        return Action.DENY
    return Action.ALLOW if rule.parser is None else Action.REDIRECT


def _keys(direction: Direction, rule: PortRule) -> Iterable[PolicyKey]:
    for identity in (ANY_IDENTITY,) if rule.peers is None else rule.peers:
        yield PolicyKey(direction, identity, rule.protocol, rule.port)


def _merge(one: PolicyEntry, other: PolicyEntry) -> PolicyEntry:
    origins = one.origins + tuple(o for o in other.origins if o not in one.origins)
    if one.action is other.action:
        if one.parser is not other.parser:
            return PolicyEntry(Action.DENY, None, origins)
        return PolicyEntry(one.action, one.parser, origins)
    winner = min(one, other, key=lambda entry: entry.action)
    return PolicyEntry(winner.action, winner.parser, origins)
