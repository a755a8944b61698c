"""A Kubernetes object as the store holds it, and what it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from policy_engine.errors import Errors, FieldError
from policy_engine.kinds import KINDS
from policy_engine.rules import PolicyRef

CLUSTER_SCOPED = frozenset(
    {
        "Namespace",
        "Node",
        "CiliumClusterwideNetworkPolicy",
        "SidegateClusterwideNetworkPolicy",
        "SidegateIdentity",
        "SidegateEndpointSlice",
        "SidegatePolicyReport",
        "CustomResourceDefinition",
        "ClusterRole",
        "ClusterRoleBinding",
        "PriorityClass",
        "GatewayClass",
        "XMesh",
        "IngressClass",
        "CiliumLoadBalancerIPPool",
    }
)


@dataclass(frozen=True, slots=True, order=True)
class ResourceKey:
    """``namespace`` is empty for the cluster-scoped kinds."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}".replace(" /", " ")


class Resource:
    """``manifest`` is plain JSON data and is not changed once it is here.

    Where it came from is not part of what it says: equal manifests compare equal.
    """

    __slots__ = ("_manifest", "key", "line", "source")

    def __init__(
        self, key: ResourceKey, manifest: dict[str, Any], source: str = "", line: int = 0
    ) -> None:
        self.key, self.source, self.line = key, source, line
        self._manifest: dict[str, Any] | bytes = manifest

    def packed(self) -> Resource:
        """The same as the bytes of its JSON, a tenth of the memory: for kinds of which there are
        many. Each look at its manifest reads them."""
        made = Resource(self.key, {}, self.source, self.line)
        made._manifest = msgspec.json.encode(self.manifest, order="deterministic")
        return made

    @property
    def manifest(self) -> dict[str, Any]:
        if isinstance(self._manifest, bytes):
            read: dict[str, Any] = msgspec.json.decode(self._manifest)
            return read
        return self._manifest

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Resource):
            return NotImplemented
        if isinstance(self._manifest, bytes) and isinstance(other._manifest, bytes):
            return self.key == other.key and self._manifest == other._manifest
        return self.key == other.key and self.manifest == other.manifest

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Resource({self.key}, {self.origin})"

    @property
    def origin(self) -> str:
        """``file:line``, or the source alone where there are no lines."""
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True)
class SourceError:
    """What is wrong in a source. ``line`` is 0, ``object`` and ``field`` empty, where unknown."""

    source: str
    line: int
    object: str
    field: str
    message: str
    remedy: str

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}" if self.line else self.source
        parts = [where, self.object, self.field, self.message]
        return ": ".join(part for part in parts if part) + (
            f"; {self.remedy}" if self.remedy else ""
        )


def plural(kind: str) -> str:
    """As the API server names a kind in its paths."""
    name = kind.lower()
    if name.endswith("y") and name[-2] not in "aeiou":
        return name[:-1] + "ies"
    return name + ("es" if name.endswith(("s", "sh")) else "s")


def policy_ref(key: ResourceKey) -> PolicyRef:
    """Of an object of one of the kinds of policy."""
    return PolicyRef(KINDS[key.kind], key.namespace, key.name)


def identify(manifest: Any) -> tuple[ResourceKey | None, list[FieldError]]:
    """The key of an object, or None and why it has none."""
    errors = Errors()
    if not isinstance(manifest, dict):
        errors.add("", "not a Kubernetes object", "give apiVersion, kind and metadata.name")
        return None, errors
    errors.typed(manifest.get("apiVersion"), str, "apiVersion")
    kind = errors.typed(manifest.get("kind"), str, "kind")
    metadata = errors.typed(manifest.get("metadata"), dict, "metadata")
    if metadata is None:
        return None, errors
    name = errors.typed(metadata.get("name"), str, "metadata.name")
    namespace: str | None = "default"
    if metadata.get("namespace"):
        namespace = errors.typed(metadata["namespace"], str, "metadata.namespace")
    for path, value in (("metadata.name", name), ("metadata.namespace", namespace)):
        if value is not None and not _is_path_segment(value):
            errors.add(path, f"{value!r} is not a name", "use lower case letters, digits, - and .")
    if errors or kind is None or name is None or namespace is None:
        return None, errors
    return ResourceKey(kind, "" if kind in CLUSTER_SCOPED else namespace, name), errors


def _is_path_segment(value: str) -> bool:
    """The one rule that Kubernetes has for the names of every kind, and no white space."""
    return (
        value not in {"", ".", ".."}
        and len(value) <= 253
        and not any(c in "/%" or c.isspace() for c in value)
    )
