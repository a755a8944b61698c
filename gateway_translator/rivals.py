"""HTTPRoutes and GRPCRoutes that want one hostname of one listener: the oldest route has it.

Source: GRPCRoute, "Cross Serving": of two such routes exactly one is accepted.
"""

from __future__ import annotations

from collections import defaultdict

from gateway_translator.composition import ListenerId
from gateway_translator.hostnames import meet
from gateway_translator.resources.meta import Key
from gateway_translator.resources.routes import Route

_OTHER = {"HTTPRoute": "GRPCRoute", "GRPCRoute": "HTTPRoute"}
_Claim = tuple[tuple[str, str], tuple[str, ...]]


class Rivals:
    """Who wants which hostnames, accepted or not."""

    def __init__(self) -> None:
        self._claims: defaultdict[tuple[ListenerId, str], dict[Key, _Claim]] = defaultdict(dict)
        self._held: dict[Key, dict[ListenerId, _Claim]] = {}
        self._wanted: dict[ListenerId, _Claim] = {}

    def loses(self, route: Route, listener: ListenerId, hostnames: tuple[str, ...]) -> bool:
        """Whether an older route of the other kind has one of them; claims them all the same."""
        other = _OTHER.get(route.kind)
        if other is None:
            return False
        claim = self._wanted[listener] = (route.age, hostnames)
        return any(
            theirs[0] < route.age and _meet(claim, theirs)
            for theirs in self._claims.get((listener, other), {}).values()
        )

    def settle(self, route: Key) -> set[Key]:
        """After all of a route's claims: the younger rivals that this changes something for."""
        wanted, self._wanted = self._wanted, {}
        held = self._held.pop(route, {})
        if wanted:
            self._held[route] = wanted
        found: set[Key] = set()
        for listener in held.keys() | wanted.keys():
            before, now = held.get(listener), wanted.get(listener)
            if before == now:
                continue
            claims = self._claims[listener, route[0]]
            if now is None:
                del claims[route]
            else:
                claims[route] = now
            changed = [claim for claim in (before, now) if claim is not None]
            for rival, theirs in self._claims.get((listener, _OTHER[route[0]]), {}).items():
                if any(claim[0] < theirs[0] and _meet(claim, theirs) for claim in changed):
                    found.add(rival)
        return found


def _meet(one: _Claim, other: _Claim) -> bool:
    return any(meet(a, b) for a in one[1] for b in other[1])
