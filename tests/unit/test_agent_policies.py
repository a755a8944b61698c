"""Policy objects on their way into the repository: what a slip of the pen does, and does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kube_store.kept import Kept
from kube_store.resource import Resource, ResourceKey
from kube_store.store import Change, ChangeType
from node_agent.policies import PolicyObjects
from policy_engine.repository import PolicyRepository

KEY = ResourceKey("CiliumNetworkPolicy", "default", "p")


def objects(path: Path) -> PolicyObjects:
    return PolicyObjects(PolicyRepository(), lambda _: None, Kept(path / "kept.json"))


def take(into: PolicyObjects, entity: str, change: ChangeType = ChangeType.MODIFIED) -> None:
    manifest: dict[str, Any] = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "p"},
        "spec": {"endpointSelector": {}, "ingress": [{"fromEntities": [entity]}]},
    }
    into.take(Change(change, Resource(KEY, manifest)))


def enforced(of: PolicyObjects) -> str:
    return next(c.reason for c in of.conditions(KEY, lambda _: 1) if c.type == "Enforced")


def test_the_last_valid_version_holds_across_restarts(tmp_path: Path) -> None:
    made = objects(tmp_path)
    take(made, "cluster")
    take(made, "moon")
    assert made.invalid()[KEY][0].field == "spec.ingress[0].fromEntities[0]"
    assert enforced(made) == "LastValidVersion"
    made = objects(tmp_path)
    take(made, "moon")
    assert enforced(made) == "LastValidVersion"
    take(made, "world")
    assert enforced(made) == "Enforced"
    made = objects(tmp_path)
    take(made, "moon")
    assert enforced(made) == "Invalid", "what was mended is not kept"


def test_what_is_deleted_is_not_kept(tmp_path: Path) -> None:
    made = objects(tmp_path)
    take(made, "cluster")
    take(made, "moon")
    take(made, "moon", ChangeType.DELETED)
    made = objects(tmp_path)
    take(made, "moon")
    assert enforced(made) == "Invalid"
