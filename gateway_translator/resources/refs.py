"""References to other objects, as the fields of Gateway API spell them."""

from __future__ import annotations

from gateway_translator.resources.meta import Struct
from gateway_translator.resources.values import Port, Weight

GROUP = "gateway.networking.k8s.io"


class ParentReference(Struct, frozen=True):
    """Of a route. ``namespace`` empty: the route's own."""

    name: str
    group: str = GROUP
    kind: str = "Gateway"
    namespace: str = ""
    section_name: str = ""
    port: Port = 0

    def as_written(self) -> dict[str, object]:
        """For a status, which repeats the reference; defaults are written as the CRD fills them."""
        written: dict[str, object] = {"group": self.group, "kind": self.kind, "name": self.name}
        for field, value in (
            ("namespace", self.namespace),
            ("sectionName", self.section_name),
            ("port", self.port),
        ):
            if value:
                written[field] = value
        return written


class ObjectReference(Struct, frozen=True):
    """Of a Secret, ConfigMap or parameters; ``namespace`` empty: the referrer's own."""

    name: str
    group: str = ""
    kind: str = "Secret"
    namespace: str = ""


class BackendReference(Struct, frozen=True):
    name: str
    group: str = ""
    kind: str = "Service"
    namespace: str = ""
    port: Port = 0
    weight: Weight = 1
