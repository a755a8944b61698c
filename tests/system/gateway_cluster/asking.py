"""A client that asks one address all the time, to see when nobody answers there."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise

from tests.system.gateway_cluster.edge import ask

_SECONDS = 0.3
_PAUSE_SECONDS = 0.02


class Asking:
    """Each time over a new connection; ``tries`` are when each began and ended (monotonic), and
    its status."""

    def __init__(self, address: str, url: str) -> None:
        self.address, self._url = address, url
        self.tries: list[tuple[float, float, int]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def silence(self, since: float) -> float:
        """The longest time after that in which nothing was answered."""
        ends = [since, *(end for begin, end, s in self.tries if begin >= since and s)]
        return max(b - a for a, b in pairwise([*ends, time.monotonic()]))

    def answered_after(self, since: float) -> float:
        """How long it took until a try that began after that time was answered; inf if none."""
        answered = (end - since for begin, end, s in self.tries if begin >= since and s)
        return next(answered, math.inf)

    def _ask(self) -> None:
        while not self._over.is_set():
            begin = time.monotonic()
            status = ask(self.address, self._url, seconds=_SECONDS).status
            self.tries.append((begin, time.monotonic(), status))
            time.sleep(_PAUSE_SECONDS)


@contextlib.contextmanager
def asking(addresses: Sequence[str], url: str) -> Iterator[list[Asking]]:
    """Every address at once."""
    made = [Asking(address, url) for address in addresses]
    try:
        yield made
    finally:
        for each in made:
            each.stop()
