"""Gateways as units: compiled when they change, composed when their routes do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from gateway_translator.compiled import CompiledRoute
from gateway_translator.composition import ListenerId, PortPlan, compose, plan_ports
from gateway_translator.gateway_conditions import class_condition
from gateway_translator.gateways import (
    Addresses,
    CompiledGateway,
    compile_gateway,
)
from gateway_translator.ir import Certificate, Listener, ObjectRef, TrustBundle
from gateway_translator.listener_tls import Material
from gateway_translator.resources.gateway import Gateway, GatewayClass, ListenerSet
from gateway_translator.resources.meta import Key, Object
from gateway_translator.status_table import StatusTable
from gateway_translator.statuses import gateway_status, listener_set_status
from gateway_translator.tables import Tables
from gateway_translator.tracked import Tracked
from gateway_translator.world import Fact, World

Attachments = Mapping[ListenerId, Mapping[Key, tuple[CompiledRoute, tuple[str, ...]]]]
NO_ADDRESSES = Addresses()


def attachable(gateway: Key) -> Fact:
    """What a route reads of a Gateway; a ListenerSet is read as its own key."""
    return ("attachable", gateway[1], gateway[2])


class Gateways:
    """Those of classes of ours. ``on_nodes``: those that need no address."""

    def __init__(
        self,
        world: World,
        tables: Tables,
        controller: str,
        statuses: StatusTable,
    ) -> None:
        self.listeners: Tracked[str, Listener] = Tracked()
        self.certificates: Tracked[str, Certificate] = Tracked()
        self.bundles: Tracked[str, TrustBundle] = Tracked()
        self.on_nodes: Tracked[Key, bool] = Tracked()
        self.compiled: dict[Key, CompiledGateway] = {}
        self.plans: dict[Key, dict[int, PortPlan]] = {}
        self._world, self._tables = world, tables
        self._controller, self._statuses = controller, statuses
        self._addresses: dict[Key, Addresses] = {}
        self._views: dict[Key, Any] = {}
        self._sets: dict[Key, set[Key]] = defaultdict(set)
        self._material: defaultdict[str, set[Key]] = defaultdict(set)
        self._dirty: set[Key] = set()

    def addresses_of(self, key: Key) -> Addresses:
        return self._addresses.get(key, NO_ADDRESSES)

    def set_addresses(self, key: Key, addresses: Addresses) -> bool:
        """Whether they are other than before."""
        changed = self._addresses.get(key, NO_ADDRESSES) != addresses
        self._addresses[key] = addresses
        return changed

    def touch(self, key: Key) -> None:
        """Its routes changed."""
        self._dirty.add(key)

    def update(self, key: Key) -> set[Key]:
        """The routes that are to be attached anew."""
        reader = self._world.reader(key)
        gateway = self._world.objects.get(key)
        compiled = None
        if isinstance(gateway, Gateway):
            class_key = ("GatewayClass", "", gateway.spec.gateway_class_name)
            found = reader.get(class_key, GatewayClass)
            if (
                found is not None
                and found.spec.controller_name == self._controller
                and class_condition(found, reader).status
            ):
                addresses = self._addresses.get(key, NO_ADDRESSES)
                compiled = compile_gateway(gateway, found, addresses, reader)
        self._dirty.add(key)
        self.on_nodes.set(key, (compiled is not None and compiled.exposure.on_nodes) or None)
        if compiled is None:
            self.compiled.pop(key, None)
        else:
            self.compiled[key] = compiled
        self._plan(key, compiled)
        self.keep(key, compiled.material if compiled else Material())
        view = compiled and _view(compiled)
        if view == self._views.get(key):
            return set()
        self._views[key] = view
        return self._world.readers([attachable(key)])

    def settle(self, attached: Attachments) -> None:
        """Listeners and statuses of the Gateways that changed, or whose routes did."""
        for key in self._dirty:
            self._settle(key, self.compiled.get(key), attached)
        self._dirty.clear()

    def _plan(self, key: Key, compiled: CompiledGateway | None) -> None:
        before = self.plans.pop(key, {})
        plans = {}
        if compiled is not None and compiled.served:
            plans = plan_ports(f"{key[1]}/{key[2]}", compiled.listeners)
            self.plans[key] = plans
        names = set()
        for plan in plans.values():
            for table, hosts in plan.tables:
                self._tables.declare(table, hosts)
                names.add(table.name)
        for plan in before.values():
            for table, _ in plan.tables:
                if table.name not in names:
                    self._tables.remove(table.name)

    def _settle(self, key: Key, compiled: CompiledGateway | None, attached: Attachments) -> None:
        name = f"{key[1]}/{key[2]}"
        listeners: dict[str, Listener] = {}
        if compiled is not None and compiled.served:
            composed = compose(
                key,
                name,
                compiled.addresses.assigned,
                compiled.listeners,
                self.plans.get(key, {}),
                attached,
                compiled.exposure,
            )
            listeners = {each.name: each for each in composed}
        for old in [n for n in self.listeners.current if n.startswith(f"{name}/")]:
            if old not in listeners:
                self.listeners.drop(old)
        for each in listeners.values():
            self.listeners.put(each.name, each)
        self._write_statuses(key, compiled, attached)

    def keep(self, key: Key, material: Material) -> None:
        """Certificates and bundles are shared: gone with the last that refers to one."""
        now: dict[str, Certificate | TrustBundle] = {}
        now.update({f"cert {n}": c for n, c in material.certificates.items()})
        now.update({f"trust {n}": b for n, b in material.bundles.items()})
        for name in [n for n, users in self._material.items() if key in users and n not in now]:
            self._material[name].discard(key)
            if not self._material[name]:
                del self._material[name]
                kind, _, bare = name.partition(" ")
                (self.certificates if kind == "cert" else self.bundles).drop(bare)
        for name, item in now.items():
            self._material[name].add(key)
            if isinstance(item, Certificate):
                self.certificates.put(item.name, item)
            else:
                self.bundles.put(item.name, item)

    def _write_statuses(
        self, key: Key, compiled: CompiledGateway | None, attached: Attachments
    ) -> None:
        sets = self._sets.pop(key, set())
        if compiled is None:
            self._statuses.set(ObjectRef(*key), None)
        else:
            counts = {
                (state.owner, state.spec.name): len(
                    attached.get((state.owner, state.spec.name), ())
                )
                for state in compiled.listeners
            }
            self._statuses.set(ObjectRef(*key), gateway_status(compiled, counts))
            self._sets[key] = set(compiled.sets)
            for owner, conditions in compiled.sets.items():
                item = self._world.objects[owner]
                states = [each for each in compiled.listeners if each.owner == owner]
                status = listener_set_status(item, conditions, states, counts, compiled.programmed)
                self._statuses.set(ObjectRef(*owner), status)
        for owner in sets - self._sets.get(key, set()):
            gone = self._world.objects.get(owner)
            if not isinstance(gone, ListenerSet) or self._parent(gone) == key:
                self._statuses.set(ObjectRef(*owner), None)

    def _parent(self, item: ListenerSet) -> Key:
        parent = item.spec.parent_ref
        return ("Gateway", parent.namespace or item.namespace, parent.name)

    def owner_of(self, item: Object | None) -> Key | None:
        """The Gateway that a ListenerSet, or a Gateway itself, belongs to."""
        if isinstance(item, ListenerSet):
            return self._parent(item)
        return item.key if isinstance(item, Gateway) else None


def _view(compiled: CompiledGateway) -> Any:
    """What places of routes depend on: while it is equal, routes stay as they are."""
    return (
        compiled.served,
        compiled.client_certificate,
        compiled.gateway.spec.default_scope,
        tuple((each.owner, each.spec, each.kinds, each.served) for each in compiled.listeners),
        tuple(key for key, conditions in compiled.sets.items() if conditions[0].status),
    )
