"""Which objects Envoy refuses, found by what it says to resources that several may be in.

Envoy keeps the last form of a resource that it took. So what is suspected is taken out at first,
whereupon the rest is served, and put back by halves: a half that is refused again is halved, down
to one, which is guilty. No state in between serves less than the first.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from gateway_translator.ir import ObjectRef
from xds_server.gateway.origins import Resource

Group = tuple[ObjectRef, ...]


@dataclass(slots=True)
class _Trouble:
    """With one resource. ``waiting`` are out and are to be tried, ``tried`` are in again."""

    guilty: dict[ObjectRef, str] = field(default_factory=dict)
    waiting: list[Group] = field(default_factory=list)
    tried: Group = ()
    message: str = ""

    def out(self) -> dict[ObjectRef, str]:
        suspected = {ref: self.message for group in self.waiting for ref in group}
        return {
            ref: text for ref, text in (suspected | self.guilty).items() if ref not in self.tried
        }

    def refused(self, message: str, suspects: Iterable[ObjectRef]) -> None:
        """Its present form was."""
        self.message = message
        if not self.tried:
            found = tuple(ref for ref in suspects if ref not in self.out())
        else:
            found, self.tried = self.tried, ()
        if len(found) == 1:
            self.guilty[found[0]] = message
        else:
            half = len(found) // 2
            self.waiting += [group for group in (found[half:], found[:half]) if group]

    def taken(self) -> None:
        """Its present form was, or it is no more."""
        for ref in self.tried:
            self.guilty.pop(ref, None)
        self.tried = self.waiting.pop() if self.waiting else ()

    def forget(self, gone: Collection[tuple[str, str, str]]) -> None:
        self.guilty = {ref: text for ref, text in self.guilty.items() if not _is_of(ref, gone)}
        groups = (tuple(ref for ref in group if not _is_of(ref, gone)) for group in self.waiting)
        self.waiting = [group for group in groups if group]
        self.tried = tuple(ref for ref in self.tried if not _is_of(ref, gone))


class Refusals:
    """``suspects`` says which objects a resource may be refused for now."""

    def __init__(self, suspects: Callable[[Resource], Iterable[ObjectRef]]) -> None:
        self._suspects = suspects
        self._troubles: dict[Resource, _Trouble] = {}

    def __bool__(self) -> bool:
        return bool(self._troubles)

    def out(self) -> dict[ObjectRef, str]:
        """What is to be left out now, with Envoy's words (`Translator.set_refused`)."""
        return {r: text for each in self._troubles.values() for r, text in each.out().items()}

    def guilty(self) -> dict[ObjectRef, str]:
        """What Envoy is known to refuse."""
        return {r: text for each in self._troubles.values() for r, text in each.guilty.items()}

    def step(self, refused: Mapping[Resource, str], accepted: Callable[[str, str], bool]) -> bool:
        """Whether :meth:`out` is another now.

        ``refused``: resources whose present form is, with Envoy's words; ``accepted``: whether
        Envoy took the present form of one.
        """
        before = self.out()
        for resource in refused.keys() | self._troubles.keys():
            trouble = self._troubles.setdefault(resource, _Trouble())
            if resource in refused:
                trouble.refused(refused[resource], self._suspects(resource))
            elif accepted(*resource):
                trouble.taken()
            if not (trouble.guilty or trouble.waiting or trouble.tried):
                del self._troubles[resource]
        return before != self.out()

    def forget(self, objects: Collection[tuple[str, str, str]]) -> bool:
        """Kind, namespace and name of those that changed: they may be right now. Whether
        :meth:`out` is another."""
        before = self.out()
        for trouble in self._troubles.values():
            trouble.forget(objects)
        return before != self.out()

    def retry(self) -> bool:
        """What else a guilty one depends on may have changed: a certificate, a port of the node.
        Whether there is any."""
        for trouble in self._troubles.values():
            if not trouble.waiting and not trouble.tried:
                trouble.waiting = [(ref,) for ref in trouble.guilty]
                trouble.taken()
        return bool(self._troubles)


def _is_of(ref: ObjectRef, objects: Collection[tuple[str, str, str]]) -> bool:
    return (ref.kind, ref.namespace, ref.name) in objects
