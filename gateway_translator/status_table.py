"""Statuses of all objects. There are as many as routes, and few are looked at: each is held as the
bytes of its JSON, a quarter of the memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from gateway_translator.ir import ObjectRef
from gateway_translator.statuses import Status
from gateway_translator.tracked import Tracked


class StatusTable:
    """As :class:`Tracked`. What is read of it is the reader's own."""

    def __init__(self) -> None:
        self._held: Tracked[ObjectRef, bytes] = Tracked()

    @property
    def current(self) -> Mapping[ObjectRef, Status]:
        return _Read(self._held.current)

    def set(self, ref: ObjectRef, status: Status | None) -> None:
        self._held.set(ref, None if status is None else msgspec.json.encode(status))

    def take(self) -> Mapping[ObjectRef, Status | None]:
        """Since the last time; None: there is nothing to say of it any more."""
        return _Read(self._held.take())


class _Read(Mapping[ObjectRef, Any]):
    """Read as it is looked at."""

    def __init__(self, held: Mapping[ObjectRef, bytes | None]) -> None:
        self._held = held

    def __getitem__(self, ref: ObjectRef) -> Any:
        held = self._held[ref]
        return None if held is None else msgspec.json.decode(held)

    def __iter__(self) -> Iterator[ObjectRef]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)
