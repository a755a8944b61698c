"""The policies that the modules enforce: who was told what, and who has acknowledged it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain

from sidegate_api.policy.v1 import policy_pb2 as pb
from xds_server.policy_versions import as_understood

_ADDRESS_BYTES = 16
_ALL = 0  # no endpoint has this id


@dataclass(frozen=True, slots=True)
class Sidecar:
    """``peer`` says who an address (16 bytes) is now."""

    endpoint_id: int
    peer: Callable[[bytes], pb.Peer]


@dataclass(slots=True, eq=False)
class PolicySession:
    """One module's stream, without I/O.

    The first response is the full set, later ones hold what changed since the one before.
    ``acked`` and ``errors`` are by endpoint id; a refused policy is in force nowhere.

    ``sidecar`` is set for a pod's own proxy, which is told of that endpoint alone, not before it
    has a policy: an empty set would end what an earlier agent has allowed. It has
    ``met`` the addresses that it asked for, of which ``peers`` are still to be told.
    """

    policies: Mapping[int, pb.EndpointPolicy]
    hello: pb.Hello
    wake: Callable[[], None] = lambda: None
    nonce: int = 0
    changed: set[int] = field(default_factory=set)
    pending: dict[int, dict[int, int]] = field(default_factory=dict)
    acked: dict[int, int] = field(default_factory=dict)
    errors: dict[int, pb.EndpointError] = field(default_factory=dict)
    ready: bool = False
    sidecar: Sidecar | None = None
    met: set[bytes] = field(default_factory=set)
    peers: set[bytes] = field(default_factory=set)

    def concerns(self, endpoint_id: int) -> bool:
        """Whether it is told of this endpoint."""
        return self.sidecar is None or self.sidecar.endpoint_id == endpoint_id

    def tell_peer(self, address: bytes) -> None:
        """Who this is, is to be told, or told anew."""
        self.peers.add(address)
        self.wake()

    def change(self, endpoint_id: int) -> None:
        """Something about this endpoint is to be told."""
        if self.concerns(endpoint_id):
            self.changed.add(endpoint_id)
            self.wake()

    def response(self) -> pb.PolicyResponse | None:
        """The next message to the module; None when it knows everything."""
        full = self.nonce == 0
        if not (full or self.changed or self.peers):
            return None
        if full and self.sidecar and self.sidecar.endpoint_id not in self.policies:
            return None
        ids = sorted(filter(self.concerns, self.policies if full else self.changed))
        self.changed.clear()
        asked, self.peers = self.peers, set()
        self.nonce += 1
        version = self.hello.protocol_version
        upserts = [as_understood(self.policies[i], version) for i in ids if i in self.policies]
        self.pending[self.nonce] = {p.endpoint_id: p.revision for p in upserts}
        removed = [i for i in ids if i not in self.policies]
        for endpoint_id in removed:
            self.acked.pop(endpoint_id, None)
            self.errors.pop(endpoint_id, None)
        return pb.PolicyResponse(
            nonce=self.nonce,
            full=full,
            upserts=upserts,
            removed_endpoint_ids=removed,
            peers=[self.sidecar.peer(address) for address in sorted(asked)] if self.sidecar else (),
        )

    def acknowledge(self, ack: pb.Ack) -> None:
        """Raises ValueError for a nonce that was not sent or is acknowledged already."""
        revisions = self.pending.pop(ack.nonce, None)
        if revisions is None:
            raise ValueError(f"Ack.nonce {ack.nonce}: no such response is unacknowledged")
        refused = {error.endpoint_id: error for error in ack.errors}
        for endpoint_id, revision in revisions.items():
            if endpoint_id not in self.policies:
                continue  # removed meanwhile
            if endpoint_id in refused:
                self.errors[endpoint_id] = refused[endpoint_id]
                self.acked.pop(endpoint_id, None)
            else:
                self.errors.pop(endpoint_id, None)
                self.acked[endpoint_id] = revision
        self.ready = True


class PolicyHub:
    """The policies of all endpoints and the modules that are connected."""

    def __init__(self) -> None:
        self.policies: dict[int, pb.EndpointPolicy] = {}
        self.sessions: list[PolicySession] = []
        self._told: dict[int, list[PolicySession]] = {}  # as _told_of says
        self._progress: dict[int, asyncio.Event] = {}
        self._met: dict[bytes, set[PolicySession]] = {}

    def publish(self, policy: pb.EndpointPolicy) -> None:
        self.policies[policy.endpoint_id] = policy
        self._tell(policy.endpoint_id)

    def remove(self, endpoint_id: int) -> None:
        if self.policies.pop(endpoint_id, None) is not None:
            self._tell(endpoint_id)

    def connect(
        self, hello: pb.Hello, wake: Callable[[], None], sidecar: Sidecar | None = None
    ) -> PolicySession:
        session = PolicySession(self.policies, hello, wake, sidecar=sidecar)
        self.sessions.append(session)
        self._told.setdefault(_told_of(session), []).append(session)
        return session

    def concerned(self, endpoint_id: int) -> Iterator[PolicySession]:
        """Who is told of this endpoint: the node's, and of all sidecars its own."""
        return chain(self._told.get(_ALL, ()), self._told.get(endpoint_id, ()))

    def meet(self, session: PolicySession, addresses: Iterable[bytes]) -> None:
        """A sidecar asks who these are; it is told whenever that changes. Raises ValueError."""
        if session.sidecar is None:
            raise ValueError("PeerQuery: of a sidecar's module only")
        for address in addresses:
            if len(address) != _ADDRESS_BYTES:
                raise ValueError(f"PeerQuery.addresses: {address!r} is not {_ADDRESS_BYTES} bytes")
            session.met.add(address)
            self._met.setdefault(address, set()).add(session)
            session.tell_peer(address)

    def readdress(self, address: bytes) -> None:
        """An address may have another owner: whoever has met it is told."""
        for session in self._met.get(address, ()):
            session.tell_peer(address)

    def readdress_all(self) -> None:
        """As :meth:`readdress`, of every address that somebody has met."""
        for address in self._met:
            self.readdress(address)

    def disconnect(self, session: PolicySession) -> None:
        self.sessions.remove(session)
        self._told[_told_of(session)].remove(session)
        if not self._told[_told_of(session)]:
            del self._told[_told_of(session)]
        for address in session.met:
            self._met[address].remove(session)
            if not self._met[address]:
                del self._met[address]
        self.progress(session)

    def progress(self, session: PolicySession) -> None:
        """Wake whoever waits for something that this one may have acknowledged, and no other: a
        change of many sidecars' policies is acknowledged by one after the other."""
        of = _told_of(session)
        for key in list(self._progress) if of == _ALL else (_ALL, of):
            if waited_for := self._progress.pop(key, None):
                waited_for.set()

    async def acknowledged(self, endpoint_id: int, revision: int, seconds: float) -> bool:
        """Whether every connected module enforces this revision, or a later one, in time."""
        return await self._until(
            endpoint_id,
            lambda: all(
                s.acked.get(endpoint_id, -1) >= revision for s in self.concerned(endpoint_id)
            ),
            seconds,
        )

    async def ready(self, node: str, seconds: float) -> bool:
        """Whether the module of this node has its first set of policies in time."""
        return await self._until(
            _ALL, lambda: any(s.ready and s.hello.node == node for s in self.sessions), seconds
        )

    async def _until(self, key: int, condition: Callable[[], bool], seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    await self._progress.setdefault(key, asyncio.Event()).wait()
        except TimeoutError:
            return False
        return True

    def _tell(self, endpoint_id: int) -> None:
        for session in self.concerned(endpoint_id):
            session.change(endpoint_id)


def _told_of(session: PolicySession) -> int:
    """The endpoint of a sidecar's, ``_ALL`` for the node's."""
    return session.sidecar.endpoint_id if session.sidecar else _ALL
