"""What is followed of the API server, and what is made of an object that it sends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from kube_store.kube_client import JSON, METADATA, METADATA_LIST, resource_path
from kube_store.resource import Resource, identify

log = structlog.get_logger(__name__)

Trim = Callable[[dict[str, Any]], dict[str, Any]]

_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class Corrupt(ValueError):
    """An answer that no API server gives."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One kind. ``optional``: a CRD that may come later, by ``remedy``; none: it may as well stay
    away, which is no trouble. ``trim`` keeps what is needed. ``packed``: as
    :meth:`Resource.packed`."""

    kind: str
    group_version: str
    plural: str
    field_selector: str = ""
    label_selector: str = ""
    metadata_only: bool = False
    optional: bool = False
    remedy: str = "the operator installs the CRDs: is it running?"
    trim: Trim = lambda manifest: manifest
    packed: bool = False

    @property
    def path(self) -> str:
        return resource_path(self.group_version, self.plural)

    @property
    def crd(self) -> str:
        """The name of its CustomResourceDefinition."""
        return f"{self.plural}.{self.group}"

    @property
    def group(self) -> str:
        """Empty for the core group."""
        return self.group_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        return self.group_version.rpartition("/")[2]

    @property
    def selectors(self) -> dict[str, str]:
        """As query parameters."""
        both = {"fieldSelector": self.field_selector, "labelSelector": self.label_selector}
        return {name: value for name, value in both.items() if value}

    def accept(self, listed: bool) -> str:
        """The Accept header of a list, or of a watch."""
        if not self.metadata_only:
            return JSON
        return METADATA_LIST if listed else METADATA

    def resource(self, manifest: dict[str, Any]) -> Resource | None:
        """None, and an error in the log, for what has no key.

        Kind and version are not in the items of a list; who wrote what is of no use to us.
        """
        metadata = manifest["metadata"]
        metadata.pop("managedFields", None)
        (metadata.get("annotations") or {}).pop(_LAST_APPLIED, None)
        manifest = {**manifest, "apiVersion": self.group_version, "kind": self.kind}
        key, errors = identify(manifest)
        if key is None:
            log.error("object left out", resource=self.plural, error="; ".join(map(str, errors)))
            return None
        made = Resource(key, self.trim(manifest), "kube-apiserver")
        return made.packed() if self.packed else made


def version_of(manifest: Any) -> int:
    """The resourceVersion of an object or a list. Raises Corrupt.

    Comparable since Kubernetes 1.35 says so of its own resources and CRDs (KEP-5504), and in
    fact ever since: it is etcd's revision.
    """
    try:
        return int(manifest["metadata"]["resourceVersion"])
    except (KeyError, TypeError, ValueError):
        raise Corrupt("the API server sent an object without a resourceVersion") from None
