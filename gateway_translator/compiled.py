"""What a route compiles to, by itself: before any listener takes it in."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway_translator.conditions import Condition, bad, good
from gateway_translator.ir import Backends, Cluster, HttpRoute, TrustBundle
from gateway_translator.resources.meta import Key
from gateway_translator.secrets import UnusableError

Precedence = tuple[int | str, ...]
"""Sorts the route to be tried first first; unique among all routes."""


class InvalidRuleError(Exception):
    """``reason``: UnsupportedValue or IncompatibleFilters."""

    def __init__(self, message: str, reason: str = "UnsupportedValue") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Variant:
    """What of a listener a compiled route may depend on; empty where it does not. ``mesh``: it is a
    Service's."""

    client_certificate: str = ""
    port: int = 0
    tls: bool = False
    mesh: bool = False


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """``entries``: of HTTPRoutes and GRPCRoutes; ``backends``: of the others.

    ``accepted`` is None unless no rule at all can be served (its entries answer 500 then).
    """

    key: Key
    age: tuple[str, str]
    hostnames: tuple[str, ...]
    entries: tuple[tuple[Precedence, HttpRoute], ...] = ()
    backends: Backends | None = None
    clusters: dict[str, Cluster] = field(default_factory=dict)
    bundles: dict[str, TrustBundle] = field(default_factory=dict)
    resolved: Condition = field(default_factory=lambda: good("ResolvedRefs"))
    accepted: Condition | None = None
    partially: Condition | None = None
    uses_tls: bool = False
    uses_port: bool = False


def resolved_refs(problems: list[UnusableError]) -> Condition:
    """One reason is given, that of the first problem; the message has them all."""
    if not problems:
        return good("ResolvedRefs")
    text = "; ".join(dict.fromkeys(map(str, problems)))
    return bad("ResolvedRefs", problems[0].reason, text)


def rule_conditions(
    problems: list[tuple[int, InvalidRuleError]], rules: int
) -> tuple[Condition | None, Condition | None]:
    """(Accepted if it is False, PartiallyInvalid if it is True)."""
    if not problems:
        return None, None
    text = "; ".join(f"Rule {number}: {error}" for number, error in problems)
    reason = problems[0][1].reason
    if len({number for number, _ in problems}) == rules:
        return bad("Accepted", reason, text), None
    return None, Condition("PartiallyInvalid", True, "UnsupportedValue", f"Dropped {text}")
