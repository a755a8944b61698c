"""Policy objects of the store on their way into the repository, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from kube_store.resource import ResourceKey, policy_ref
from kube_store.store import Change, ChangeType
from policy_engine.errors import FieldError, RegexError
from policy_engine.identity import IdentitiesExhausted
from policy_engine.kinds import KINDS
from policy_engine.parse import parse_policy
from policy_engine.repository import PolicyRepository


@dataclass(frozen=True, slots=True)
class Condition:
    """As in a Kubernetes status; ``status`` is "True" or "False"."""

    type: str
    status: str
    reason: str
    message: str


class PolicyObjects:
    """Keeps the repository in step with the store; an invalid object changes nothing there."""

    def __init__(
        self, repository: PolicyRepository, regex_error: RegexError, kept: MutableMapping[str, Any]
    ) -> None:
        """``kept`` has what the objects that are not valid now said when they last were."""
        self._repository = repository
        self._regex_error = regex_error
        self._kept = kept
        self._in_force: dict[ResourceKey, dict[str, Any]] = {}
        self._invalid: dict[ResourceKey, list[FieldError]] = {}

    def errors_in(self, key: ResourceKey, manifest: dict[str, Any]) -> list[FieldError]:
        """What would be said of the object, without taking it."""
        return parse_policy(manifest, self._regex_error)[1] if key.kind in KINDS else []

    def take(self, change: Change) -> set[int]:
        """The endpoints that it concerns; none where the object is not valid.

        What the object said when it was last valid holds on then, across restarts too: a slip of
        the pen must not turn default deny off.
        """
        key, manifest = change.resource.key, change.resource.manifest
        self._invalid.pop(key, None)
        if change.type is ChangeType.DELETED:
            self._in_force.pop(key, None)
            self._kept.pop(str(key), None)
            return self._repository.delete_policy(policy_ref(key))
        affected, errors = self._enforce(key, manifest)
        if not errors:
            self._kept.pop(str(key), None)
            return affected
        self._invalid[key] = errors
        if key in self._in_force:
            self._kept[str(key)] = self._in_force[key]
        elif str(key) in self._kept:
            affected, _ = self._enforce(key, self._kept[str(key)])
        return affected

    def _enforce(
        self, key: ResourceKey, manifest: dict[str, Any]
    ) -> tuple[set[int], list[FieldError]]:
        policy, errors = parse_policy(manifest, self._regex_error)
        if policy is None:
            return set(), errors
        try:
            affected = self._repository.upsert_policy(policy)
        except IdentitiesExhausted as error:
            return set(), [FieldError("spec", str(error), "use fewer CIDRs")]
        self._in_force[key] = manifest
        return affected, []

    def invalid(self) -> dict[ResourceKey, list[FieldError]]:
        return dict(self._invalid)

    def conditions(self, key: ResourceKey, revision_of: Callable[[int], int]) -> list[Condition]:
        """Valid, and Enforced with the endpoints that it holds on."""
        if key.kind not in KINDS:
            return []
        errors = self._invalid.get(key, [])
        known = policy_ref(key) in self._repository.policies()
        valid = Condition("Valid", "True", "Parsed", "")
        if errors:
            valid = Condition("Valid", "False", "Invalid", "; ".join(map(str, errors)))
        endpoints = sorted(self._repository.endpoints_of(policy_ref(key)))
        where = ", ".join(f"{e}@{revision_of(e)}" for e in endpoints) or "selects no endpoint here"
        if errors and known:
            enforced = Condition("Enforced", "True", "LastValidVersion", where)
        elif errors:
            enforced = Condition("Enforced", "False", "Invalid", "never was valid")
        else:
            enforced = Condition("Enforced", "True", "Enforced", where)
        return [valid, enforced]
