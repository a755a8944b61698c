"""How the things of the IR are called, and what they were made from."""

from __future__ import annotations

from dataclasses import dataclass


class InvalidIRError(ValueError):
    """A thing of the IR that no proxy could serve: a defect of the translator, not of its input."""


@dataclass(frozen=True, slots=True, order=True)
class ObjectRef:
    """The object that something was made from. ``section``: a listener or rule of it, by name.

    A rule without a name has its number. ``namespace`` is empty for cluster-scoped kinds.
    """

    kind: str
    namespace: str
    name: str
    section: str = ""

    def __str__(self) -> str:
        where = f"{self.kind} {self.namespace}/{self.name}".replace(" /", " ")
        return f"{where}#{self.section}" if self.section else where


def check(holds: bool, message: str) -> None:
    """Raises InvalidIRError."""
    if not holds:
        raise InvalidIRError(message)


def check_port(port: int, of: str) -> None:
    check(0 < port < 1 << 16, f"{of}: {port} is no port")
