"""Objects in, IR and statuses out; what one change costs follows from what depends on it.

Each route and each Gateway is a unit that is compiled by a pure function; the world remembers what
a unit has read, so that a change translates anew the units that it concerns and no other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway_translator.backend_tls import conflict, read_policy
from gateway_translator.clusters import UNIT as ENDPOINTS
from gateway_translator.clusters import Clusters
from gateway_translator.features import MESH_SUPPORTED, SUPPORTED
from gateway_translator.gateway_conditions import class_condition, mesh_condition
from gateway_translator.gateway_unit import Gateways
from gateway_translator.gateways import Addresses
from gateway_translator.ingress_unit import Ingresses
from gateway_translator.ir import Delta, ObjectRef, Snapshot, TrustBundle
from gateway_translator.mesh import UNIT as MESH
from gateway_translator.mesh import Mesh
from gateway_translator.regexes import RegexError, regex_error
from gateway_translator.resources import CLUSTER_SCOPED, InvalidResourceError, parse
from gateway_translator.resources.core import Service
from gateway_translator.resources.gateway import GatewayClass, XMesh
from gateway_translator.resources.meta import Key, Object
from gateway_translator.resources.policies import BackendTlsPolicy
from gateway_translator.route_unit import Routes
from gateway_translator.status_table import StatusTable
from gateway_translator.statuses import Status, class_status, mesh_status, policy_status
from gateway_translator.tables import Tables
from gateway_translator.world import World

CONTROLLER = "sidegate.io/gateway-controller"


@dataclass(frozen=True, slots=True)
class Output:
    """What followed from one batch. ``statuses``: None where there is nothing of ours to say.

    ``problems``: objects that could not be read, with the error; empty once they can.
    ``on_nodes``: Gateways that need no address from now on; None: they do.
    ``frontends``: what has addresses for Ingresses (one of them, or an IngressClass), and the
    Ingresses that are served there now; None: nobody is.
    """

    delta: Delta
    statuses: Mapping[ObjectRef, Status | None] = field(default_factory=dict)
    problems: Mapping[ObjectRef, str] = field(default_factory=dict)
    frontends: Mapping[Key, tuple[Key, ...] | None] = field(default_factory=dict)
    on_nodes: Mapping[Key, bool | None] = field(default_factory=dict)


class Translator:
    """Not thread safe. ``controller``: of the GatewayClasses that are ours."""

    def __init__(self, controller: str = CONTROLLER, regex: RegexError = regex_error) -> None:
        self._controller = controller
        self._world = World()
        self._statuses = StatusTable()
        self._tables = Tables()
        self._clusters = Clusters(self._world)
        self._mesh = Mesh(self._world, self._tables)
        self._gateways = Gateways(self._world, self._tables, controller, self._statuses)
        self._ingresses = Ingresses(
            self._world, self._tables, self._clusters, self._gateways, self._statuses
        )
        self._routes = Routes(
            self._world,
            self._tables,
            self._clusters,
            self._mesh,
            self._gateways,
            self._statuses,
            controller,
            regex,
        )

    def apply(self, upserts: Iterable[dict[str, Any]] = (), deletes: Iterable[Key] = ()) -> Output:
        """One batch of manifests and of keys that are gone (namespace "" where cluster-scoped)."""
        dirty: set[Key] = set()
        problems: dict[ObjectRef, str] = {}
        for key in deletes:
            dirty |= self._world.put(key, None) | {key}
        for manifest in upserts:
            try:
                found = parse(manifest)
            except InvalidResourceError as error:
                key = _key(manifest)
                problems[ObjectRef(*key)] = str(error)
                dirty |= self._world.put(key, None) | {key}
                continue
            if found is None or (known := self._world.objects.get(found.key)) == found:
                continue
            readers = self._world.put(found.key, found)
            if not _serves_the_same(known, found):
                dirty |= readers | {found.key}
        return self._settle(dirty, problems)

    def set_addresses(
        self, namespace: str, name: str, addresses: Addresses, kind: str = "Gateway"
    ) -> Output:
        """What a Gateway has from now on, or an Ingress (dedicated) or IngressClass (shared)."""
        key = (kind, namespace, name)
        changed = self._gateways.set_addresses(key, addresses)
        if changed and kind != "Gateway":
            self._ingresses.touch(key)
        return self._settle({key} if changed else set(), {})

    def set_refused(self, refused: Mapping[ObjectRef, str]) -> Output:
        """What the proxy refuses now: the objects it came from (listeners as sections of Gateways
        and ListenerSets, rules as those of routes), and its words. Each is taken out, and says so
        in its status, so that the rest can be served.
        """
        before, now = self._world.refused, dict(refused)
        self._world.refused = now
        changed = {ref for ref in before.keys() | now.keys() if before.get(ref) != now.get(ref)}
        dirty: set[Key] = set()
        for ref in changed:
            key = (ref.kind, ref.namespace, ref.name)
            dirty |= {key} | self._world.readers([key])
        return self._settle(dirty, {})

    def snapshot(self) -> Snapshot:
        """All that is served now. Its mappings are live: read them before the next batch."""
        return Snapshot(
            listeners=self._gateways.listeners.current,
            tables=self._tables.tables.current,
            virtual_hosts=self._tables.virtual_hosts.current,
            clusters=self._clusters.clusters.current,
            endpoints=self._clusters.endpoints.current,
            certificates=self._gateways.certificates.current,
            trust=self._trust(),
            mesh=self._mesh.frontends.current,
        )

    def statuses(self) -> Mapping[ObjectRef, Status]:
        return self._statuses.current

    def _settle(self, dirty: set[Key], problems: dict[ObjectRef, str]) -> Output:
        """Classes, then Gateways, then routes: each may make the next ones dirty."""
        for key in [key for key in dirty if key[0] in {"GatewayClass", "XMesh"}]:
            self._class(key)
        for key in sorted(key for key in dirty if key[0] == "Gateway"):
            dirty |= self._gateways.update(key)
        while routes := {key for key in dirty if key[0].endswith("Route")}:
            dirty -= routes
            for key in sorted(routes):
                dirty |= self._routes.update(key)
        for key in sorted(key for key in dirty if key[0] == "Ingress"):
            self._ingresses.update(key)
        for key in dirty:
            if key[0] == ENDPOINTS:
                self._clusters.refresh(key[2])
            elif key[0] == MESH:
                self._mesh.touch(key)
        self._mesh.settle()
        self._ingresses.settle()
        self._tables.settle()
        self._gateways.settle(self._routes.attached)
        policies = {key for key in dirty if key[0] == "BackendTLSPolicy"}
        for key in policies | self._routes.policies_touched():
            self._policy(key)
        for ref, problem in self._ingresses.problems.take().items():
            problems.setdefault(ref, problem or "")
        frontends, on_nodes = self._ingresses.frontends.take(), self._gateways.on_nodes.take()
        return Output(self._delta(), self._statuses.take(), problems, frontends, on_nodes)

    def _class(self, key: Key) -> None:
        found = self._world.objects.get(key)
        status = None
        if isinstance(found, GatewayClass) and self._is_ours(found):
            status = class_status(found, class_condition(found, self._world.reader(key)), SUPPORTED)
        elif isinstance(found, XMesh) and self._is_ours(found):
            status = mesh_status(found, mesh_condition(found), MESH_SUPPORTED)
        self._statuses.set(ObjectRef(*key), status)

    def _is_ours(self, found: GatewayClass | XMesh) -> bool:
        return found.spec.controller_name == self._controller

    def _policy(self, key: Key) -> None:
        """With the Gateways as ancestors whose routes lead to a Service that it targets."""
        policy = self._world.objects.get(key)
        status = None
        if isinstance(policy, BackendTlsPolicy):
            reader = self._world.reader(key)
            facts = [("policies", key[1], target.name) for target in policy.spec.target_refs]
            users = self._world.readers(facts)
            gateways = {gateway for user in users for gateway in self._routes.gateways_of(user)}
            conditions = list(read_policy(policy, reader).conditions)
            if (lost := conflict(policy, reader)) is not None:
                conditions[0] = lost
            if gateways:
                status = policy_status(policy, self._controller, gateways, conditions)
        self._statuses.set(ObjectRef(*key), status)

    def _trust(self) -> dict[str, TrustBundle]:
        return {**self._clusters.bundles.current, **self._gateways.bundles.current}

    def _delta(self) -> Delta:
        changed = self._clusters.bundles.take().keys() | self._gateways.bundles.take().keys()
        known = self._trust()
        return Delta(
            listeners=self._gateways.listeners.take(),
            tables=self._tables.tables.take(),
            virtual_hosts=self._tables.virtual_hosts.take(),
            clusters=self._clusters.clusters.take(),
            endpoints=self._clusters.endpoints.take(),
            certificates=self._gateways.certificates.take(),
            trust={name: known.get(name) for name in changed},
            mesh=self._mesh.frontends.take(),
        )


def _serves_the_same(known: Object | None, found: Object) -> bool:
    """Labels and annotations of a Service are others' business, and change often."""
    return isinstance(known, Service) and isinstance(found, Service) and known.spec == found.spec


def _key(manifest: dict[str, Any]) -> Key:
    metadata = manifest.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    kind = str(manifest.get("kind"))
    namespace = "" if kind in CLUSTER_SCOPED else str(metadata.get("namespace") or "default")
    return kind, namespace, str(metadata.get("name"))
