"""The proxies of this node's pods that enforce L7 themselves (docs/adr/0013).

A pod that mounts our CSI volume gets a directory with the module's library and two sockets: the
policy stream of its endpoint, and the lease by which the datapath knows that it is alive.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import structlog

from datapath.codec import Prefix, address_bytes, address_of
from datapath.facade import Datapath
from kube_store.resource import ResourceKey
from kube_store.store import Store
from node_agent import lease, module_library, peer_process
from node_agent.endpoints import EndpointRecord
from node_agent.interception import ports_of
from node_agent.proof.prove import Proof, lacking, nothing, proven
from node_agent.proof.prover import Prover
from node_agent.services import NodeServices
from node_agent.state import read_json, write_json
from policy_engine.labels import NAMESPACE, SERVICE_ACCOUNT, Labels
from sidegate_api.policy.v1 import policy_pb2 as pb
from xds_server.policy_stream import Sidecar
from xds_server.policy_versions import skew
from xds_server.server import XdsServer

log = structlog.get_logger(__name__)

# Longer than a kubelet takes to tell of a container; it tells after its postStart hook.
_STATUS_SECONDS = 10.0
_NOT_YET = nothing("its configuration has not been seen yet")


@dataclass(frozen=True, slots=True)
class Volume:
    """What the kubelet published: ``target`` is the directory that the proxy's container sees;
    ``netns`` is the cookie of the pod's network namespace once its proxy has come, 0 before."""

    uid: str
    namespace: str
    name: str
    target: str
    netns: int = 0


@dataclass(slots=True)
class Served:
    """A pod whose endpoint and volume are both there. ``asking``: the latest to want the lease."""

    record: EndpointRecord
    directory_fd: int
    server: grpc.aio.Server
    lease_socket: socket.socket
    asking: asyncio.Task[None] | None = None
    process: peer_process.Process | None = None
    refused: str = ""


class Sidecars:
    """``identity_labels`` are those of an identity; ``store`` has the node's pods; ``services``
    translates Services for them, None where nobody does.

    All methods belong to the event loop's thread.
    """

    def __init__(
        self,
        state_dir: Path,
        library: Path,
        xds: XdsServer,
        datapath: Datapath,
        identity_labels: Callable[[int], Labels | None],
        store: Store,
        services: NodeServices | None,
    ) -> None:
        self._state_dir = state_dir / "sidecars"
        self._library = library
        self._xds, self._datapath = xds, datapath
        self._identity_labels, self._store = identity_labels, store
        self._services = services
        self._volumes: dict[str, Volume] = {}
        self._records: dict[int, EndpointRecord] = {}
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._prover = Prover(self._note_proof)
        self.served: dict[int, Served] = {}

    def load(self) -> None:
        """Take over the volumes that an earlier agent published."""
        for path in sorted(self._state_dir.glob("*.json")):
            if saved := read_json(path):
                self._volumes[path.stem] = Volume(**saved)
        self._show_services()

    # -- volumes ------------------------------------------------------------------------------

    async def publish(self, volume: Volume) -> None:
        """Fill the directory, for an endpoint that mostly comes later. Raises OSError."""
        await asyncio.to_thread(module_library.place, Path(volume.target), self._library)
        self._keep(volume)
        for record in self._records.values():
            if record.pod_uid == volume.uid:
                self._begin(record)

    async def unpublish(self, target: str) -> None:
        """No such volume is no error."""
        for volume in [each for each in self._volumes.values() if each.target == target]:
            for endpoint_id, served in list(self.served.items()):
                if served.record.pod_uid == volume.uid:
                    await self._end(endpoint_id)
            del self._volumes[volume.uid]
            (self._state_dir / f"{volume.uid}.json").unlink(missing_ok=True)
        self._show_services()
        await asyncio.to_thread(shutil.rmtree, target, ignore_errors=True)

    def _keep(self, volume: Volume) -> None:
        write_json(self._state_dir / f"{volume.uid}.json", asdict(volume))
        self._volumes[volume.uid] = volume

    def _show_services(self) -> None:
        """Sockets of these pods see the Service's address, for their proxy routes by it."""
        if self._services:
            self._services.set_bypass({v.netns for v in self._volumes.values() if v.netns})

    # -- endpoints ----------------------------------------------------------------------------

    def note(self, endpoint_id: int, record: EndpointRecord | None) -> None:
        """A listener of :class:`Enforcement`. What its proxy judges is closed before it talks."""
        if record is None:
            self._records.pop(endpoint_id, None)
            self._later(self._end(endpoint_id))
            return
        self._records[endpoint_id] = record
        if record.pod_uid in self._volumes:
            self._begin(record)

    def readdress(self, prefixes: Iterable[Prefix]) -> None:
        """These have other owners now."""
        for prefix in prefixes:
            one = prefix.num_addresses == 1
            self._xds.readdress(address_bytes(prefix.network_address) if one else None)

    def _begin(self, record: EndpointRecord) -> None:
        if record.id not in self._datapath.enforcers:
            self._enforce(record, _NOT_YET)
        self._later(self._serve(record))

    def _enforce(self, record: EndpointRecord, proof: Proof) -> None:
        self._datapath.enforcers.set(record.id, ports_of(self._manifest(record), proof))

    def _manifest(self, record: EndpointRecord) -> Mapping[str, Any]:
        """Of its pod; empty while that is not known."""
        pod = self._store.get(ResourceKey("Pod", record.pod_namespace, record.pod_name))
        return pod.manifest if pod else {}

    def _note_proof(self, endpoint_id: int) -> None:
        record, proof = self.served[endpoint_id].record, self._prover.proofs[endpoint_id]
        self._enforce(record, proof)
        log.info("what a pod's own proxy enforces is another", pod=record.pod,
                 lacking=lacking(proof) or "nothing")  # fmt: skip

    async def _serve(self, record: EndpointRecord) -> None:
        async with self._lock:
            if record.id in self.served:
                self.served[record.id].record = record
                return
            target = self._volumes[record.pod_uid].target
            try:
                directory = os.open(target, os.O_PATH | os.O_DIRECTORY)
            except OSError as error:
                log.error("a pod's proxy cannot be served", pod=record.pod, error=str(error))
                return
            # By descriptor: the kubelet's paths are longer than a socket's may be (unix(7)).
            base = Path(f"/proc/self/fd/{directory}")
            for name in ("agent.sock", "lease.sock"):
                (base / name).unlink(missing_ok=True)
            sidecar = Sidecar(record.id, self._peer)
            server = await self._xds.serve_sidecar(str(base / "agent.sock"), sidecar)
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            listener.bind(str(base / "lease.sock"))
            listener.listen(4)
            for name in ("agent.sock", "lease.sock"):
                (base / name).chmod(0o666)  # the proxy is no root; the directory is its pod's
            self.served[record.id] = Served(record, directory, server, listener)
            asyncio.get_running_loop().add_reader(listener, self._accept, record.id)
            log.info("a pod's own proxy is served", pod=record.pod, endpoint=record.id)

    async def _end(self, endpoint_id: int) -> None:
        async with self._lock:
            self._prover.forget(endpoint_id)
            served = self.served.pop(endpoint_id, None)
            if served:
                await _close(served)

    async def stop(self) -> None:
        """Streams end; leases and who enforces stay as they are."""
        for task in list(self._tasks):
            task.cancel()
        self._prover.stop()
        for served in list(self.served.values()):
            await _close(served)
        self.served.clear()

    # -- the proxy ----------------------------------------------------------------------------

    def _accept(self, endpoint_id: int) -> None:
        with contextlib.suppress(BlockingIOError):
            served = self.served[endpoint_id]
            peer, _ = served.lease_socket.accept()
            if served.asking:
                served.asking.cancel()
            served.asking = self._later(self._hand_lease(served, peer))

    async def _hand_lease(self, served: Served, peer: socket.socket) -> None:
        with peer:
            try:
                process = await self._proxy_at(served, peer)
            except (OSError, PermissionError) as error:
                log.error("no lease: it is not the pod's proxy that asks",
                          pod=served.record.pod, error=str(error))  # fmt: skip
                return
            record = served.record
            fd = self._datapath.enforcers.open_lease(record.id)
            try:
                self._is_proxy(record, process)
                socket.send_fds(peer, [b"\0"], [fd])
            except OSError as error:
                log.warning("a pod's proxy is gone", pod=record.pod, error=str(error))
                return
            finally:
                os.close(fd)
            served.process, served.refused = process, ""
            self._route_by_service(record, process)
            self._prover.watch(record.id, process)
            log.info("a pod's own proxy has a lease", pod=record.pod, pid=process.pid)

    async def _proxy_at(self, served: Served, peer: socket.socket) -> peer_process.Process:
        """Who asks, once it is known to be the proxy: the kubelet tells of a container some time
        after it has started it. Whom an earlier agent knew is known: no cgroup's number is given
        twice. Raises OSError, PermissionError: it is somebody else."""
        now = asyncio.get_running_loop().time
        deadline = now() + _STATUS_SECONDS
        while True:
            process = peer_process.of(peer)
            if process.cgroup_id == self._datapath.enforcers.cgroup(served.record.id):
                return process
            try:
                peer_process.check(process, served.record, self._manifest(served.record))
            except PermissionError as error:
                served.refused = str(error)
                if now() > deadline:
                    raise
            else:
                return process
            await asyncio.sleep(0.05)

    def _is_proxy(self, record: EndpointRecord, process: peer_process.Process) -> None:
        """Another one than before has proven nothing yet; the same one may have, to an earlier
        agent."""
        if self._datapath.enforcers.cgroup(record.id) != process.cgroup_id:
            self._enforce(record, _NOT_YET)
            self._datapath.enforcers.set_cgroup(record.id, process.cgroup_id)

    def _route_by_service(self, record: EndpointRecord, process: peer_process.Process) -> None:
        """Its packets are translated on their way from the pod; then its sockets are no more."""
        if self._services:
            self._services.attach(record.host_ifindex)
        self._keep(replace(self._volumes[record.pod_uid], netns=process.netns))
        self._show_services()

    def _peer(self, address: bytes) -> pb.Peer:
        identity = self._datapath.resolve(address_of(address)).identity
        path = self._spiffe_path(identity)
        return pb.Peer(address=address, identity=identity, spiffe_path=path)

    def _spiffe_path(self, identity: int) -> str:
        """Of the certificate that a pod of this identity has; empty: it is no pod's."""
        labels = self._identity_labels(identity) or {}
        if NAMESPACE not in labels:
            return ""
        return f"ns/{labels[NAMESPACE]}/sa/{labels.get(SERVICE_ACCOUNT, 'default')}"

    def _later(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _holds_lease(self, endpoint_id: int) -> bool:
        fd = self._datapath.enforcers.open_lease(endpoint_id)
        try:
            return lease.held(fd)
        finally:
            os.close(fd)

    def view(self) -> list[dict[str, Any]]:
        """A row for each, for ``sidegate istio status``."""
        rows = []
        for endpoint_id, served in sorted(self.served.items()):
            session = self._xds.sidecar(endpoint_id)
            held = served.process is not None and self._holds_lease(endpoint_id)
            rows.append(
                {
                    "pod": served.record.pod,
                    "endpoint": endpoint_id,
                    "connected": session is not None,
                    "certificate": f"spiffe://*/{self._spiffe_path(served.record.identity)}",
                    "enforcer": "sidecar" if held else "none: closed",
                    "version": session.hello.module_version if session else "",
                    "skew": skew(session.hello) if session else "",
                    "wanted": self._xds.revision(endpoint_id),
                    "acknowledged": session.acked.get(endpoint_id, 0) if session else 0,
                    "lease": held,
                    "proven": proven(self._prover.proofs.get(endpoint_id, _NOT_YET)),
                    "lacking": lacking(self._prover.proofs.get(endpoint_id, _NOT_YET)),
                    "refused": served.refused,
                }
            )
        return rows


async def _close(served: Served) -> None:
    asyncio.get_running_loop().remove_reader(served.lease_socket)
    if served.asking:
        served.asking.cancel()
    served.lease_socket.close()
    await served.server.stop(grace=0.1)
    os.close(served.directory_fd)
