"""The service table in the kernel, moved by differences only.

At every moment, also after a kill between two writes, each frontend has one whole set of backends:
slots are written under a revision that nobody reads yet, then the frontend's value names it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from datapath.libbpf import Map
from datapath.service_codec import (
    MemberState,
    ServiceValue,
    backend_of,
    flow_key,
    frontend_of,
    l4_addr,
    member_fields,
    member_key,
    slot_fields,
    slot_key,
)
from datapath.service_model import Backend, Frontend, ServicePort
from policy_engine.model import Protocol

_REVISIONS = 1 << 32
_Entries = Iterable[tuple[bytes, bytes]]


@dataclass(slots=True)
class _Written:
    value: ServiceValue
    entry: ServicePort
    members: dict[Backend, MemberState]


class ServiceMap:
    """Keeps a copy of what is written; takes over what an earlier agent wrote."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._services = maps["services"]
        self._slots = maps["service_backends"]
        self._members = maps["service_members"]
        self._flows = maps["service_flows"]
        slots, members = list(self._slots.items()), list(self._members.items())
        self._written = self._read(slots, members)
        self._next_id = 1 + max((each.value.id for each in self._written.values()), default=0)
        self._sweep(slots, members)

    @property
    def frontends(self) -> set[Frontend]:
        return set(self._written)

    def table(self) -> dict[Frontend, ServicePort]:
        """As it is in the kernel now."""
        found = self._read(self._slots.items(), self._members.items())
        return {frontend: written.entry for frontend, written in found.items()}

    def set(self, frontend: Frontend, entry: ServicePort) -> bool:
        """Whether a backend of datagram flows went. Raises BpfError where a map is full; what the
        frontend had before stays then."""
        members = _members_of(frontend, entry)
        known = self._written.get(frontend)
        if known and known.entry == entry and known.members == members:
            return False
        known = known or _Written(ServiceValue(self._next_id, 0, 0), ServicePort(), {})
        self._next_id = max(self._next_id, known.value.id + 1)
        revision = (known.value.revision + 1) % _REVISIONS
        value = ServiceValue(known.value.id, revision, len(entry.backends), entry.affinity_seconds)
        try:
            for backend, state in members.items():
                if backend not in known.members or state is MemberState.READY:
                    self._set_member(value.id, frontend.protocol, backend, state)
            for slot, backend in enumerate(entry.backends):
                raw = l4_addr(*backend, frontend.protocol)
                self._slots.set(slot_key(value.id, revision, slot), raw)
            self._services.set(l4_addr(*frontend), value.pack())
        except OSError:
            self._delete_slots(value)
            self._delete_members(frontend, value.id, members.keys() - known.members.keys())
            raise
        self._written[frontend] = _Written(value, entry, members)
        self._delete_slots(known.value)
        for backend, state in members.items():
            if state is MemberState.DRAINING:
                self._set_member(value.id, frontend.protocol, backend, state)
        gone = known.members.keys() - members.keys()
        self._delete_members(frontend, value.id, gone)
        return bool(gone) and frontend.protocol is Protocol.UDP

    def delete(self, frontend: Frontend) -> bool:
        """As :meth:`set`; a frontend that is not known is no error."""
        known = self._written.pop(frontend, None)
        if known is None:
            return False
        self._services.delete(l4_addr(*frontend))
        self._delete_slots(known.value)
        self._delete_members(frontend, known.value.id, known.members.keys())
        return bool(known.members) and frontend.protocol is Protocol.UDP

    def is_stale(self, socket_cookie: int, peer: Backend) -> bool:
        """Whether a datagram socket was connected to ``peer`` for a frontend that lost it."""
        flow = self._flows.get(flow_key(socket_cookie, l4_addr(*peer, Protocol.UDP)))
        if flow is None:
            return False
        written = self._written.get(frontend_of(flow))
        return written is None or peer not in written.members

    def _read(self, raw_slots: _Entries, raw_members: _Entries) -> dict[Frontend, _Written]:
        slots: dict[tuple[int, int], dict[int, Backend]] = defaultdict(dict)
        for key, raw in raw_slots:
            service_id, revision, slot = slot_fields(key)
            slots[service_id, revision][slot] = backend_of(raw)
        members: dict[int, dict[Backend, MemberState]] = defaultdict(dict)
        for key, raw in raw_members:
            service_id, backend = member_fields(key)
            members[service_id][backend] = MemberState(int.from_bytes(raw, "little"))
        found = {}
        for key, raw in self._services.items():
            value = ServiceValue.unpack(raw)
            own = slots[value.id, value.revision]
            backends = tuple(own[slot] for slot in range(value.count) if slot in own)
            states = members[value.id]
            draining = tuple(b for b, s in states.items() if s is MemberState.DRAINING)
            entry = ServicePort(backends, draining, value.affinity_seconds)
            found[frontend_of(key)] = _Written(value, entry, states)
        return found

    def _sweep(self, slots: _Entries, members: _Entries) -> None:
        """Away with what a killed agent wrote and no frontend names."""
        counts = {(w.value.id, w.value.revision): w.value.count for w in self._written.values()}
        ids = {service_id for service_id, _ in counts}
        for key, _ in slots:
            service_id, revision, slot = slot_fields(key)
            if slot >= counts.get((service_id, revision), 0):
                self._slots.delete(key)
        for key, _ in members:
            if member_fields(key)[0] not in ids:
                self._members.delete(key)

    def _set_member(
        self, service_id: int, protocol: Protocol, backend: Backend, state: MemberState
    ) -> None:
        key = member_key(service_id, l4_addr(*backend, protocol))
        self._members.set(key, int(state).to_bytes(4, "little"))

    def _delete_members(
        self, frontend: Frontend, service_id: int, backends: AbstractSet[Backend]
    ) -> None:
        for backend in backends:
            self._members.delete(member_key(service_id, l4_addr(*backend, frontend.protocol)))

    def _delete_slots(self, value: ServiceValue) -> None:
        for slot in range(value.count):
            self._slots.delete(slot_key(value.id, value.revision, slot))


def _members_of(frontend: Frontend, entry: ServicePort) -> dict[Backend, MemberState]:
    """Only where a client may stay with a backend; a TCP connection does so by itself."""
    if frontend.protocol is Protocol.TCP and not entry.affinity_seconds:
        return {}
    return dict.fromkeys(entry.draining, MemberState.DRAINING) | dict.fromkeys(
        entry.backends, MemberState.READY
    )
