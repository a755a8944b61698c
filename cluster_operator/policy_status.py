"""The status of policies: what the object itself says, and what the nodes make of it."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from cluster_operator.events import Events
from kube_store.kube_client import KubeClient
from kube_store.resource import ResourceKey, plural, policy_ref
from kube_store.shared import REPORT
from kube_store.status import StatusTarget, StatusWriter
from kube_store.store import Change, ChangeType, Store
from policy_engine.kinds import API_VERSIONS, CRD_KINDS
from policy_engine.parse import parse_policy

_PAUSE_SECONDS = 0.2


class PolicyStatus:
    """A change of a policy or of a node's report writes the status of what it concerns, if it is
    another then."""

    def __init__(self, client: KubeClient, store: Store, events: Events) -> None:
        self._store, self._events = store, events
        self._writer = StatusWriter(client)
        self._said: dict[str, dict[str, Any]] = {}  # node -> its report's policies
        self._nodes: dict[str, dict[str, Any]] = {}  # policy -> node -> what it says
        self._dirty: set[str] = set()
        self._keys: dict[str, ResourceKey] = {}
        self._told: dict[str, tuple[Any, ...]] = {}  # of which version an Event has told
        self._news = asyncio.Event()
        store.subscribe(self._take)

    async def run(self) -> None:
        """Until cancelled."""
        self._dirty |= self._keys.keys()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._writer.run())
            while True:
                while self._dirty:
                    ref = self._dirty.pop()
                    key = self._keys.get(ref)
                    resource = self._store.get(key) if key else None
                    if resource:
                        await self._say(ref, resource.manifest)
                await self._news.wait()
                self._news.clear()
                await asyncio.sleep(_PAUSE_SECONDS)  # several nodes report one change

    def _take(self, changes: list[Change]) -> None:
        for change in changes:
            key, manifest = change.resource.key, change.resource.manifest
            gone = change.type is ChangeType.DELETED
            if key.kind == REPORT:
                self._take_report(key.name, {} if gone else manifest.get("policies") or {})
            elif key.kind in CRD_KINDS:
                ref = str(policy_ref(key))
                self._dirty.add(ref)
                if gone:
                    self._writer.forget(_target(manifest))
                    self._keys.pop(ref, None)
                    self._told.pop(ref, None)
                else:
                    self._keys[ref] = key
        self._news.set()

    def _take_report(self, node: str, policies: dict[str, Any]) -> None:
        before = self._said.get(node, {})
        for ref in before.keys() | policies.keys():
            if before.get(ref) == policies.get(ref):
                continue
            self._dirty.add(ref)
            nodes = self._nodes.setdefault(ref, {})
            if ref in policies:
                nodes[node] = policies[ref]
            else:
                nodes.pop(node, None)
        self._said[node] = policies

    async def _say(self, ref: str, manifest: dict[str, Any]) -> None:
        conditions, invalid = self._conditions(ref, manifest)
        metadata = manifest["metadata"]
        version = (metadata.get("uid"), metadata.get("generation"))
        if invalid and self._told.get(ref) != version:
            self._told[ref] = version
            await self._events.say(manifest, "Warning", "Invalid", invalid)
        target = _target(manifest)
        self._writer.forget(target)  # what it has is what counts, not what is or was to be written
        held = (manifest.get("status") or {}).get("conditions") or []
        if [_said(c) for c in held] == [_said(c) for c in conditions]:
            return
        since = {(c.get("type"), c.get("status")): c.get("lastTransitionTime") for c in held}
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        for condition in conditions:
            known = since.get((condition["type"], condition["status"]))
            condition["lastTransitionTime"] = known or now
        self._writer.put(target, {"conditions": conditions})

    def _conditions(self, ref: str, manifest: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
        """Valid and Enforced, Limited if it is; and what is wrong, if anything is."""
        generation = manifest["metadata"].get("generation", 0)
        # Regular expressions are the module's matter, so of those the agents' reports tell.
        _, errors = parse_policy(manifest, lambda _: None)
        nodes = self._nodes.get(ref, {})
        reported = (said.get("message", "") for said in nodes.values()
                    if not said.get("valid") and said.get("generation") == generation)  # fmt: skip
        wrong = "; ".join(map(str, errors)) or next(reported, "")
        current = [n for n, said in nodes.items()
                   if said.get("enforced") and said.get("generation") == generation]  # fmt: skip
        waiting = sorted(nodes.keys() - set(current))
        message = f"{len(current)}/{len(nodes)} nodes"
        if waiting and not wrong:
            message += f"; not yet on {', '.join(waiting[:5])}"
        made = [
            ("Valid", not wrong, "Invalid" if wrong else "Parsed", wrong),
            ("Enforced", not waiting and not wrong,
             "Invalid" if wrong else "Waiting" if waiting else "Enforced", message),
        ]  # fmt: skip
        limits = next(filter(None, (nodes[name].get("limits", "") for name in sorted(nodes))), "")
        if limits:
            made.append(("Limited", True, "Ambient", limits))
        return [
            {
                "type": kind,
                "status": "True" if holds else "False",
                "reason": reason,
                "message": text,
                "observedGeneration": generation,
            }
            for kind, holds, reason, text in made
        ], wrong


def _said(condition: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in condition.items() if name != "lastTransitionTime"}


def _target(manifest: dict[str, Any]) -> StatusTarget:
    kind, metadata = manifest["kind"], manifest["metadata"]
    namespace = metadata.get("namespace", "")
    return StatusTarget(API_VERSIONS[kind], plural(kind), namespace, metadata["name"])
