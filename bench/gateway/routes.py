"""How soon routes are served, and what that costs the control plane, with few and many of them."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from bench.figures import Figure, figure
from bench.gateway.controllers import Controller, EnvoyGateway, Istiod, Sidegate
from bench.gateway.manifests import host, route
from bench.gateway.objects import create, together
from bench.gateway.site import Site, Turn, site

_PEERS: tuple[type[Controller], ...] = (Istiod, EnvoyGateway)
_ROUNDS = {1000: 3, 3000: 2}  # one takes three minutes and seven
_SINGLE_CHANGES = 7
_FEW = 100
_IDLE_SECONDS = 1.5
_SETTLE_SECONDS = 1.0
_STATUS_SECONDS = 400.0


@dataclass
class Seen:
    """Of one controller, a value a round but for ``one_more`` and ``change``, a value a route.

    ``at_once``: s from the last answer to all serving; ``cpu``: s until then, ``rss`` in MiB;
    ``written``: s from the last answer until all statuses are written; ``one_more``: ms from its
    answer to 200; ``change``: ms of CPU that one more route costs, its status included.
    """

    at_once: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)
    one_more: list[float] = field(default_factory=list)
    change: list[float] = field(default_factory=list)


def thousand() -> list[Figure]:
    return asyncio.run(_against_peers(1000))


def three_thousand() -> list[Figure]:
    return asyncio.run(_against_peers(3000))


async def _against_peers(count: int) -> list[Figure]:
    ours, few = Seen(), Seen()
    peers = {peer: Seen() for peer in _PEERS}
    async with site("gwbench") as place:
        for _ in range(_ROUNDS[count]):
            await measure(place, Sidegate, count, ours)
            for peer, seen in peers.items():
                await measure(place, peer, count, seen)
            if count > 1000:
                await measure(place, Sidegate, _FEW, few)
    return _figures(count, ours, {peer.title: seen for peer, seen in peers.items()}, few)


async def measure(place: Site, of: type[Controller], count: int, seen: Seen) -> None:
    """One turn of a controller; adds to what was seen."""
    async with place.turn(of) as turn:
        await _at_once(turn, count, seen)
        await _one_by_one(turn, count, seen)


async def _at_once(turn: Turn, count: int, seen: Seen) -> None:
    control, before = turn.controller, turn.controller.cpu()
    numbers = range(1, count)
    hosts: deque[str] = deque()
    complete = asyncio.Event()
    serving = asyncio.create_task(turn.client.until_all_served(hosts, complete.is_set))

    async def one(number: int) -> None:
        await create(turn.api, route(number))
        hosts.append(host(number))

    await together(partial(one, number) for number in numbers)
    answered = time.monotonic()
    complete.set()
    seen.at_once.append(await serving - answered)
    seen.cpu.append(control.cpu() - before)
    names = {f"r{number}" for number in numbers}
    seen.written.append(await turn.statuses.until(names, _STATUS_SECONDS) - answered)
    seen.rss.append(control.resident())


async def _one_by_one(turn: Turn, count: int, seen: Seen) -> None:
    control = turn.controller
    await asyncio.sleep(_IDLE_SECONDS)
    for number in range(count, count + _SINGLE_CHANGES):
        idle, since = control.cpu(), time.monotonic()
        await asyncio.sleep(_IDLE_SECONDS)
        before, begin = control.cpu(), time.monotonic()
        idle = (before - idle) / (begin - since)
        serving = asyncio.create_task(turn.client.until_served(host(number)))
        await create(turn.api, route(number))
        answered = time.monotonic()
        seen.one_more.append((await serving - answered) * 1000)
        await turn.statuses.until({f"r{number}"}, _STATUS_SECONDS)
        await asyncio.sleep(_SETTLE_SECONDS)
        used = control.cpu() - before - idle * (time.monotonic() - begin)
        seen.change.append(used * 1000)


def _figures(count: int, ours: Seen, peers: dict[str, Seen], few: Seen) -> list[Figure]:
    with_many = f"{count:,} HTTPRoutes"
    many = count > 1000
    found = [
        *shares(f"one more beside {with_many}, accepted to served", "one_more", "ms",
                ours, peers, "<= 0.15" if many else "<= 0.25"),
        *shares(f"{with_many} at once, accepted to all served", "at_once", "s", ours, peers,
                "<= 0.3"),
        *shares(f"control plane's CPU for {with_many}", "cpu", "s", ours, peers, "<= 1"),
        *shares(f"control plane's memory with {with_many}", "rss", "MiB", ours, peers, "<= 0.7"),
        *shares(f"{with_many} at once, accepted to all statuses written", "written", "s",
                ours, peers, "<= 0.3" if many else ""),
        *shares(f"control plane's CPU for one more beside {with_many}", "change", "ms",
                ours, peers, "<= 0.15" if many else ""),
    ]  # fmt: skip
    if few.change:
        against = statistics.median(few.change)
        found.append(
            figure(f"control plane's CPU for one more beside {with_many}, against {_FEW}",
                   [each / against for each in ours.change], "ratio",
                   against=f"the same beside {_FEW}", bar="<= 1.2")
        )  # fmt: skip
    return found


def shares(
    name: str, what: str, unit: str, ours: Seen, peers: dict[str, Seen], bar: str
) -> list[Figure]:
    """Everybody's figure, and ours as a share of the better peer's."""

    def of(seen: Seen) -> Sequence[float]:
        values: list[float] = getattr(seen, what)
        return values

    medians = {title: statistics.median(of(seen)) for title, seen in peers.items()}
    better = min(medians, key=lambda title: medians[title])
    return [
        figure(name, of(ours), unit),
        *(figure(f"{name}, {title}", of(seen), unit) for title, seen in peers.items()),
        figure(f"{name}, as a share", [each / medians[better] for each in of(ours)], "ratio",
               against=better, bar=bar),
    ]  # fmt: skip
