"""The agent's gRPC server on its Unix socket: ADS for Envoy, the policy service for its module."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import grpc
from envoy.service.discovery.v3 import ads_pb2_grpc
from google.protobuf.message import Message

from policy_engine.model import EndpointPolicy
from sidegate_api.policy.v1 import policy_pb2 as pb
from sidegate_api.policy.v1 import policy_pb2_grpc as pb_grpc
from xds_server.ads import AdsService
from xds_server.cache import ResourceCache
from xds_server.policy_proto import endpoint_policy
from xds_server.policy_service import PolicyService
from xds_server.policy_stream import PolicyHub, PolicySession, Sidecar

_SUN_PATH_MAX = 107  # bytes of a Unix socket's path (unix(7))


class XdsServer:
    """Carries resources to Envoy and policies to its module, verdicts back.

    All methods belong to the event loop's thread. ``counters`` only ever rise: `policy_messages`,
    `policy_bytes`, `policy_nacks`, `xds_responses`, `xds_bytes`, `xds_nacks`, `verdict_batches`,
    `verdict_records`, `verdicts_lost`.
    """

    def __init__(self, path: Path, on_verdicts: Callable[[pb.VerdictBatch], None]) -> None:
        self._path = path
        self.counters: Counter[str] = Counter()
        self._cache = ResourceCache()
        self._hub = PolicyHub()
        self._ads = AdsService(self._cache, self._hub, self.counters)
        self._on_verdicts = on_verdicts
        self._policies = PolicyService(self._hub, on_verdicts, self.counters)
        self._server: grpc.aio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises OSError when the socket's path cannot be used.

        Publish every endpoint's policy before: a module forgets what its first set lacks.
        """
        if len(bytes(self._path)) > _SUN_PATH_MAX:
            raise OSError(f"{self._path}: longer than {_SUN_PATH_MAX} bytes: use a shorter run dir")
        server = grpc.aio.server(
            options=[("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        )
        ads_pb2_grpc.add_AggregatedDiscoveryServiceServicer_to_server(self._ads, server)
        pb_grpc.add_PolicyServiceServicer_to_server(self._policies, server)
        self._path.unlink(missing_ok=True)
        try:
            server.add_insecure_port(f"unix:{self._path}")
        except RuntimeError as error:
            raise OSError(f"{self._path}: cannot listen: {error}") from error
        self._path.chmod(0o600)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """End the streams and remove the socket. Envoy and its module keep what they have."""
        if self._server:
            await self._server.stop(grace=0.1)
            self._server = None
            self._path.unlink(missing_ok=True)

    async def serve_sidecar(self, path: str, sidecar: Sidecar) -> grpc.aio.Server:
        """The policy stream of one pod's own proxy, on a socket of its own. Raises OSError.

        Whoever stops the server ends its streams; the proxy keeps what it has.
        """
        server = grpc.aio.server()
        service = PolicyService(self._hub, self._on_verdicts, self.counters, sidecar)
        pb_grpc.add_PolicyServiceServicer_to_server(service, server)
        try:
            server.add_insecure_port(f"unix:{path}")
        except RuntimeError as error:
            raise OSError(f"{path}: cannot listen: {error}") from error
        await server.start()
        return server

    def readdress(self, address: bytes | None) -> None:
        """An address (16 bytes) may have another owner, or any may (None): sidecars that have met
        it are told."""
        if address is None:
            self._hub.readdress_all()
        else:
            self._hub.readdress(address)

    def revision(self, endpoint_id: int) -> int:
        """Of the newest policy of an endpoint; 0 before its first."""
        policy = self._hub.policies.get(endpoint_id)
        return policy.revision if policy else 0

    def sidecar(self, endpoint_id: int) -> PolicySession | None:
        """The stream of a pod's own proxy; None while there is none."""
        return next((s for s in self._hub.sessions
                     if s.sidecar and s.sidecar.endpoint_id == endpoint_id), None)  # fmt: skip

    def on_answer(self, call: Callable[[], None]) -> None:
        """Whenever Envoy has said something of resources."""
        self._ads.on_answer = call

    @property
    def is_followed(self) -> bool:
        """Whether any Envoy is connected: one that ends is not, at once."""
        return bool(self._ads.clients())

    def on_followers(self, call: Callable[[], None]) -> None:
        """Whenever an Envoy has come or gone."""
        self._ads.on_clients = call

    def refused(self) -> dict[tuple[str, str], str]:
        """By type URL and name, resources whose present form Envoy refuses, with its words."""
        return self._ads.refused()

    def accepted(self, type_url: str, name: str) -> bool:
        """Whether Envoy took the present form of a resource; so of one that is gone."""
        return self._ads.accepted(type_url, name)

    def set_resources(self, type_url: str, resources: Mapping[str, Message]) -> None:
        """Make these the only resources of the type. Raises ValueError for one of another type."""
        self._cache.set_resources(type_url, resources)

    def update_resources(self, changes: Mapping[str, Mapping[str, Message | None]]) -> None:
        """New content by type URL and name, None for what is gone. Raises ValueError as above."""
        self._cache.update(changes)

    def publish_policy(self, policy: EndpointPolicy) -> None:
        """Replace the policy of an endpoint in every module."""
        self._hub.publish(endpoint_policy(policy))

    def remove_policy(self, endpoint_id: int) -> None:
        """Take the policy of an endpoint away: what still comes for it is denied."""
        self._hub.remove(endpoint_id)

    async def policy_acknowledged(
        self,
        endpoint_id: int,
        revision: int,
        timeout: float,  # noqa: ASYNC109
    ) -> bool:
        """Whether this revision, or a later one, is in force in every connected module.

        Waits for it for ``timeout`` seconds, also for one that was refused. True at once when no
        module is connected.
        """
        return await self._hub.acknowledged(endpoint_id, revision, timeout)

    async def module_ready(self, node: str, seconds: float) -> bool:
        """Whether the node's module has all policies, waiting for it so long."""
        return await self._hub.ready(node, seconds)

    def status(self) -> dict[str, Any]:
        """Clients, resources, policies and counters, ready for JSON.

        A resource is ``acknowledged`` when every client that asked for it took this version;
        ``errors`` are by client.
        """
        return {
            "clients": self._ads.clients() + self._policies.clients(),
            "resources": self._ads.resources(),
            "policies": self._policies.policies(),
            "counters": dict(self.counters),
        }
