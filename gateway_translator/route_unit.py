"""Routes as units: compiled by themselves, attached to listeners and Services, and placed."""

from __future__ import annotations

from collections import defaultdict

from gateway_translator.attachment import Attached, attach
from gateway_translator.clusters import Clusters
from gateway_translator.compiled import CompiledRoute, Variant
from gateway_translator.composition import ListenerId, listener_id
from gateway_translator.conditions import Condition, bad
from gateway_translator.gateway_unit import Gateways, attachable
from gateway_translator.gateways import CompiledGateway
from gateway_translator.http_routes import compile_http
from gateway_translator.ir import ObjectRef
from gateway_translator.mesh import Mesh, Spot, place_of, spots
from gateway_translator.regexes import RegexError
from gateway_translator.resources.gateway import Gateway, ListenerSet
from gateway_translator.resources.meta import Key
from gateway_translator.resources.refs import GROUP, ParentReference
from gateway_translator.resources.routes import Route, StreamRoute
from gateway_translator.rivals import Rivals
from gateway_translator.status_table import StatusTable
from gateway_translator.statuses import route_status
from gateway_translator.stream_routes import compile_stream
from gateway_translator.tables import Entries, Place, Tables
from gateway_translator.world import Reader, World


class Routes:
    """All of them, those of other controllers' Gateways too: they attach to nothing here."""

    def __init__(
        self,
        world: World,
        tables: Tables,
        clusters: Clusters,
        mesh: Mesh,
        gateways: Gateways,
        statuses: StatusTable,
        controller: str,
        regex: RegexError,
    ) -> None:
        self.attached: defaultdict[ListenerId, dict[Key, tuple[CompiledRoute, tuple[str, ...]]]] = (
            defaultdict(dict)
        )
        self._world, self._tables, self._clusters = world, tables, clusters
        self._mesh, self._gateways, self._statuses = mesh, gateways, statuses
        self._controller, self._regex = controller, regex
        self._listeners_of: dict[Key, dict[ListenerId, Key]] = {}
        self._rivals = Rivals()
        self._policies: set[Key] = set()
        self._read_policies: dict[Key, set[Key]] = {}

    def gateways_of(self, route: Key) -> set[tuple[str, str]]:
        """(namespace, name) of the Gateways that the route is attached to."""
        return {gateway[1:] for gateway in self._listeners_of.get(route, {}).values()}

    def policies_touched(self) -> set[Key]:
        """BackendTLSPolicies that routes have met, or meet no longer, since the last call."""
        touched, self._policies = self._policies, set()
        return touched

    def update(self, key: Key) -> set[Key]:
        """The routes that are to be attached anew because of this one."""
        route = self._world.objects.get(key)
        if not isinstance(route, Route):
            self._world.forget(key)
            self._statuses.set(ObjectRef(*key), None)
            self._take_out(key)
            return self._rivals.settle(key)
        reader = self._world.reader(key)
        variants: dict[Variant, CompiledRoute] = {}
        base = self._compile(route, reader, Variant(), variants)
        found: list[Attached] = []
        mesh: list[Spot] = []
        parents: list[tuple[ParentReference, list[Condition]]] = []
        for ref in self._parent_refs(route, reader):
            if (ref.group, ref.kind) == ("", "Service"):
                seen = self._compile(route, reader, Variant(mesh=True), variants)
                here, accepted = spots(ref, route, reader)
                if accepted.status and seen.accepted is None:
                    mesh += here
                parents.append((ref, _conditions(seen, accepted)))
            else:
                verdict = self._attach(route, ref, reader)
                if verdict is None:
                    continue
                attached, accepted = verdict
                found += attached
                parents.append((ref, _conditions(base, accepted)))
        self._statuses.set(
            ObjectRef(*key), route_status(route, self._controller, parents) if parents else None
        )
        self._settle(route, reader, found, mesh, variants)
        return self._rivals.settle(key)

    def _parent_refs(self, route: Route, reader: Reader) -> list[ParentReference]:
        """Those that are written, then the default Gateways if the route asks for them."""
        refs = list(route.spec.parent_refs)
        if route.spec.use_default_gateways == "All":
            for gateway in reader.group(("gateways", "", ""), Gateway):
                if gateway.spec.default_scope == "All":
                    refs.append(ParentReference(name=gateway.name, namespace=gateway.namespace))
        return list(dict.fromkeys(refs))

    def _attach(
        self, route: Route, ref: ParentReference, reader: Reader
    ) -> tuple[list[Attached], Condition] | None:
        """None where the parent is not ours."""
        if ref.group != GROUP or ref.kind not in {"Gateway", "ListenerSet"}:
            return None
        owner = (ref.kind, ref.namespace or route.namespace, ref.name)
        gateway: Key | None = owner
        if ref.kind == "ListenerSet":
            gateway = self._gateways.owner_of(reader.get(owner, ListenerSet))
        if gateway is None:
            return None
        reader.note(attachable(gateway))
        parent = self._gateways.compiled.get(gateway)
        if parent is None:
            return None
        if owner != gateway and not _accepts(parent, owner):
            text = f"ListenerSet {owner[1]}/{owner[2]} is not accepted"
            return [], bad("Accepted", "NotAllowedByListeners", text)
        found, accepted = attach(route, ref, parent, owner, reader)
        kept = [
            each
            for each in found
            if not self._rivals.loses(route, listener_id(each.listener), each.hostnames)
        ]
        if found and not kept:
            text = "an older route of the other HTTP kind has the hostname at this listener"
            return [], bad("Accepted", "HostnameConflict", text)
        return kept, accepted

    def _compile(
        self, route: Route, reader: Reader, variant: Variant, known: dict[Variant, CompiledRoute]
    ) -> CompiledRoute:
        if variant not in known:
            known[variant] = (
                compile_stream(route, reader, variant.mesh)
                if isinstance(route, StreamRoute)
                else compile_http(route, reader, variant, self._regex)
            )
        return known[variant]

    def _take_out(self, key: Key) -> None:
        for listener, gateway in self._listeners_of.pop(key, {}).items():
            self.attached[listener].pop(key, None)
            self._gateways.touch(gateway)
        self._mesh.attach(key, None, [])
        self._tables.place(key, {})
        self._clusters.use(key, {}, {})
        self._touch_policies(key)

    def _settle(
        self,
        route: Route,
        reader: Reader,
        found: list[Attached],
        mesh: list[Spot],
        variants: dict[Variant, CompiledRoute],
    ) -> None:
        """Takes the route out of where it was and puts it where it is now."""
        key = route.key
        for listener, gateway in self._listeners_of.pop(key, {}).items():
            self.attached[listener].pop(key, None)
            self._gateways.touch(gateway)
        places: dict[Place, Entries] = {}
        now: dict[ListenerId, Key] = {}
        used: list[CompiledRoute] = []
        base = variants[Variant()]
        for each in found:
            listener = listener_id(each.listener)
            compiled = self._variant(route, each, base, reader, variants)
            used.append(compiled)
            now[listener] = each.gateway
            if base.accepted is None:
                self.attached[listener][key] = (compiled, each.hostnames)
            self._gateways.touch(each.gateway)
            self._place(each, compiled, places)
        seen = base
        for spot in mesh:
            variant = Variant(port=spot[2] if base.uses_port else 0, mesh=True)
            compiled = self._compile(route, reader, variant, variants)
            seen = compiled
            used.append(compiled)
            if compiled.entries:
                places[place_of(spot, route.namespace)] = compiled.entries
        self._mesh.attach(key, seen, mesh)
        if now:
            self._listeners_of[key] = now
        self._tables.place(key, places)
        self._clusters.use(
            key,
            {name: cluster for each in used for name, cluster in each.clusters.items()},
            {name: bundle for each in used for name, bundle in each.bundles.items()},
        )
        self._touch_policies(key)

    def _variant(
        self,
        route: Route,
        attached: Attached,
        base: CompiledRoute,
        reader: Reader,
        variants: dict[Variant, CompiledRoute],
    ) -> CompiledRoute:
        parent = self._gateways.compiled[attached.gateway]
        spec = attached.listener.spec
        variant = Variant(
            parent.client_certificate if base.uses_tls else "",
            spec.port if base.uses_port else 0,
            base.uses_port and spec.protocol == "HTTPS",
        )
        return self._compile(route, reader, variant, variants)

    def _place(
        self, attached: Attached, compiled: CompiledRoute, places: dict[Place, Entries]
    ) -> None:
        plan = self._gateways.plans.get(attached.gateway, {}).get(attached.listener.spec.port)
        listener = listener_id(attached.listener)
        if plan is None or listener not in plan.table_of or not compiled.entries:
            return
        for hostname in attached.hostnames:
            if plan.takes(listener, hostname):
                places[plan.table_of[listener], hostname] = compiled.entries

    def _touch_policies(self, key: Key) -> None:
        """Statuses of policies name the Gateways of the routes that meet them."""
        before = self._read_policies.pop(key, set())
        now = self._world.read_by(key, "policies")
        if now:
            self._read_policies[key] = now
        self._policies |= before | now


def _accepts(parent: CompiledGateway, listener_set: Key) -> bool:
    conditions = parent.sets.get(listener_set)
    return conditions is not None and conditions[0].status


def _conditions(compiled: CompiledRoute, accepted: Condition) -> list[Condition]:
    """A route that no listener takes is not partly valid."""
    if not accepted.status:
        return [accepted, compiled.resolved]
    if compiled.accepted is not None:
        return [compiled.accepted, compiled.resolved]
    found = [accepted, compiled.resolved]
    if compiled.partially is not None:
        found.append(compiled.partially)
    return found
