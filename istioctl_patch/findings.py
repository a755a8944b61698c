"""What ``analyze`` finds besides what istioctl does, in istioctl's own form. Pure.

Source: Istio's "Configuration analysis messages": code, level, object, message.
"""

from __future__ import annotations

import enum
import fnmatch
from collections.abc import Iterable, Iterator
from dataclasses import dataclass


class Level(enum.IntEnum):
    """By weight; istioctl's names, capitalised."""

    INFO = 1
    WARNING = 2
    ERROR = 3

    @classmethod
    def of(cls, name: str) -> Level:
        """Raises ValueError."""
        try:
            return cls[name.upper()]
        except KeyError:
            known = ", ".join(each.name.capitalize() for each in cls)
            raise ValueError(f"{name!r} is no level: one of {known}") from None


CODES = {
    "SG0101": "a pod is injected without the module",
    "SG0102": "a port is excluded from interception",
    "SG0103": "PeerAuthentication contradicts a policy",
    "SG0104": "a version does not fit",
    "SG0105": "an EnvoyFilter touches what Sidegate patches",
    "SG0106": "L7 rules select a pod in ambient mode",
    "SG0107": "a revision injects no module",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """``kind``, ``namespace`` ("" for none) and ``name`` are of the object that it is about."""

    code: str
    level: Level
    kind: str
    namespace: str
    name: str
    message: str

    @property
    def object(self) -> str:
        namespace = "" if self.kind == "Namespace" else self.namespace
        return f"{self.kind} {'/'.join(filter(None, (namespace, self.name)))}"

    def line(self) -> str:
        """As istioctl's log format has it."""
        return f"{self.level.name.capitalize()} [{self.code}] ({self.object}) {self.message}"

    def data(self) -> dict[str, str]:
        """As istioctl's JSON has it."""
        return {
            "code": self.code,
            "documentationUrl": f"docs/istio.md#{self.code.lower()}",
            "level": self.level.name.capitalize(),
            "message": self.message,
            "origin": self.object,
        }


def kept(
    findings: Iterable[Finding], namespace: str, suppressed: Iterable[str]
) -> Iterator[Finding]:
    """Those of a namespace ("" for all) that nobody suppressed by ``CODE=Kind name.namespace``."""
    patterns = list(suppressed)
    for each in findings:
        name = ".".join(filter(None, (each.name, each.namespace)))
        said = f"{each.code}={each.kind} {name}"
        if namespace and each.namespace not in ("", namespace):
            continue
        if not any(fnmatch.fnmatchcase(said, pattern) for pattern in patterns):
            yield each
