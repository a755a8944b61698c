"""How long to wait before a server is asked again."""

from __future__ import annotations

import random

_DOUBLINGS = 16  # a server may be away for days: the exponent must not overflow
_LONGEST_ASKED = 60.0


class BackOff:
    """Exponential with jitter, so that a cluster of agents does not come back at one moment."""

    def __init__(self, first: float = 0.2, most: float = 30.0) -> None:
        """In seconds."""
        self._first, self._most = first, most
        self.attempts = 0

    def next(self, asked: float = 0.0) -> float:
        """Seconds. ``asked`` is the server's Retry-After: never less, up to a minute."""
        self.attempts += 1
        ceiling = min(self._most, self._first * 2 ** min(self.attempts, _DOUBLINGS))
        return max(min(asked, _LONGEST_ASKED), random.uniform(self._first / 2, ceiling))  # noqa: S311

    def reset(self) -> None:
        self.attempts = 0
