"""Things by name, and which of them have changed since one last asked."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Tracked(Generic[K, V]):
    """What is put again and equal stays the object that it was."""

    def __init__(self) -> None:
        self.current: dict[K, V] = {}
        self._changed: dict[K, V | None] = {}

    def put(self, key: K, value: V) -> None:
        if self.current.get(key) != value:
            self.current[key] = self._changed[key] = value

    def drop(self, key: K) -> None:
        if self.current.pop(key, None) is not None:
            self._changed[key] = None

    def set(self, key: K, value: V | None) -> None:
        if value is None:
            self.drop(key)
        else:
            self.put(key, value)

    def take(self) -> dict[K, V | None]:
        """Since the last time; None: it is gone."""
        changed, self._changed = self._changed, {}
        return changed
