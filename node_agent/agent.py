"""The agent of a node: starts its parts in order and takes them down in reverse.

Resources and CNI registrations go in, module and kernel enforce, verdicts come back.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import structlog
from starlette.applications import Starlette

from datapath.facade import Datapath, DatapathConfig
from kube_store import serving
from kube_store.kube_client import connect
from kube_store.store import Store
from kube_store.tasks import first_failure, stopped
from l7_proxy_ext import _rules
from l7_proxy_ext.admin import Admin
from node_agent import csi_driver, links, metrics_server
from node_agent.addresses import AddressWatch, own_addresses
from node_agent.cluster import Cluster
from node_agent.cni_install import CniInstall
from node_agent.config import AgentConfig
from node_agent.endpoints import EndpointRecord, parse_registration
from node_agent.enforcement import Enforcement
from node_agent.flows import Flows
from node_agent.gateways import Gateways
from node_agent.identities import Identities, LocalIdentities
from node_agent.ingress import Ingress
from node_agent.member import Member
from node_agent.mesh import Mesh
from node_agent.metrics import Metrics
from node_agent.objects import Objects
from node_agent.proxy import External, supervisor_of
from node_agent.sidecars import Sidecars
from node_agent.sources import Sources
from policy_engine.repository import PolicyRepository
from xds_server.listeners import node_resources
from xds_server.server import XdsServer

log = structlog.get_logger(__name__)

MODULE_SECONDS = 3.0


class AlreadyRunning(RuntimeError):
    """Another agent holds this node."""


class Agent:
    """All methods belong to the event loop's thread. ``application`` makes the REST API of it,
    which asks its parts."""

    def __init__(self, config: AgentConfig, application: Callable[[Agent], Starlette]) -> None:
        self.config = config
        self._application = application
        self.store = Store()
        self.sources: Sources | Member
        self.xds = XdsServer(config.xds_socket, lambda batch: self.flows.add_verdicts(batch))
        self.admin = Admin(config.envoy_dir / "admin.sock")
        self.supervisor = External(config) if config.external_proxy else supervisor_of(config)
        self._tasks: list[asyncio.Task[None]] = []
        self._is_up = False
        directory = config.cni_config
        self.cni = CniInstall(config, directory) if directory and config.cluster else None
        self.started = datetime.now(UTC).isoformat()  # in the order of Kubernetes' timestamps
        self.sidecars: Sidecars | None = None
        self.gateways: Gateways | None = None
        self.datapath: Datapath
        self.enforcement: Enforcement
        self.flows: Flows
        self.metrics: Metrics
        self.objects: Objects

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Everything up, in the order that never opens a gap. Raises AlreadyRunning, OSError."""
        config = self.config
        config.state_dir.mkdir(parents=True, exist_ok=True)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(_exclusive(config.run_dir / "agent.lock"))
            # In a thread: pyroute2 runs an event loop of its own.
            self.datapath = await asyncio.to_thread(
                Datapath,
                DatapathConfig(
                    config.bpf_dir, config.devices, config.proxy_ports, config.kubelet_cgroup
                ),
            )
            watch = stack.enter_context(contextlib.closing(AddressWatch()))
            own = await asyncio.to_thread(own_addresses)
            identities = await self._find_sources(repository := PolicyRepository())
            self.enforcement = Enforcement(
                config.state_dir,
                self.store,
                self.datapath,
                self.xds,
                _rules.regex_error,
                repository,
                identities,
            )
            if config.kubelet_dir:
                self.sidecars = self._make_sidecars(repository)
                stack.push_async_callback(self.sidecars.stop)
            self.gateways = self._make_gateways()
            if self.member:
                self.member.join(self.enforcement, self.gateways)
            self.flows = Flows(self.enforcement, self.datapath, self.cluster)
            self.metrics = Metrics(
                self.datapath, self.xds, self.enforcement, self.supervisor, self.flows
            )
            self.objects = Objects(self.store, self.sources, self.enforcement)
            # Before anything that may take long: whoever asks is told what it waits for.
            listener = stack.enter_context(self._listening())
            self._run("API", serving.serve(self._application(self), listener), stack)
            await self.sources.start()
            # The first set that a module gets must be whole: what it lacks is denied.
            await self.enforcement.restore(own)
            await (
                ingress := Ingress(config, self.enforcement, self.gateways, self.member)
            ).settle()
            self._publish()
            await self.xds.start()
            stack.push_async_callback(self.xds.stop)
            if config.kubelet_dir and self.sidecars:
                driver = csi_driver.serving(config.kubelet_dir, config.node, self.sidecars)
                await stack.enter_async_context(driver)
            await self.supervisor.start()
            stack.push_async_callback(self.supervisor.detach)
            # A change that came before would be called done while an adopted Envoy has the old one.
            if not await self.xds.module_ready(config.node, MODULE_SECONDS):
                log.warning("the module has not taken its policies yet: L7 is closed until it has")
            loop = asyncio.get_running_loop()
            loop.add_reader(self.datapath.events_fd, self.flows.read_events)
            stack.callback(loop.remove_reader, self.datapath.events_fd)
            for name, work in self._parts(watch, ingress):
                self._run(name, work, stack)
            if config.metrics_port:
                port = stack.enter_context(serving.listen(config.metrics_port))
                self._run("metrics", metrics_server.serve(port, self.metrics.text), stack)
            if self.member:
                await self.member.announced()
            self._is_up = True
            log.info("agent is up", node=config.node, resources=str(config.resources))
            yield

    async def failed(self) -> NoReturn:
        """Until a part of it has: what that was to keep up to date would be so no more, and nobody
        would hear of it. Raises TaskEndedError."""
        await first_failure(self._tasks)

    def _parts(
        self, watch: AddressWatch, ingress: Ingress
    ) -> Iterator[tuple[str, Coroutine[Any, Any, None]]]:
        yield "enforcement", self._keep_enforced()
        yield "sources", self.sources.watch()
        yield "addresses", self._watch_addresses(watch)
        yield "ingress", ingress.run()
        if self.gateways:
            yield "gateways", self.gateways.run()
        if self.member and self.cni:
            yield "CNI", self.cni.run(self.member)

    def _run(
        self, name: str, work: Coroutine[Any, Any, None], stack: contextlib.AsyncExitStack
    ) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        stack.push_async_callback(stopped, task)

    def not_ready(self) -> str:
        """What it waits for before it can be asked or told anything; "" once it is up."""
        if self._is_up:
            return ""
        waiting = "it waits for kube-apiserver" if self.config.cluster else "it starts"
        why = "; ".join(map(str, self.sources.errors())) or waiting
        return f"the agent is not ready, what was enforced before still is: {why}"

    @property
    def member(self) -> Member | None:
        """None where the node is by itself."""
        return self.sources if isinstance(self.sources, Member) else None

    @property
    def cluster(self) -> Cluster | None:
        """None where the node is by itself."""
        return self.member.cluster if self.member else None

    def _publish(self) -> None:
        """What Envoy gets first."""
        for type_url, resources in node_resources(self.config.proxy_ports).items():
            self.xds.set_resources(type_url, resources)
        if self.gateways:
            self.gateways.settle()

    def _make_gateways(self) -> Gateways | None:
        """None in a cluster whose agents were not told to."""
        config = self.config
        if config.cluster and not config.gateways:
            self.datapath.mesh.clear()
            return None
        mesh = self._make_mesh()
        if config.cluster:
            return Gateways(self.store, self.xds, mesh)
        table, shared = self.enforcement.table, config.gateway_addresses
        made = Gateways(self.store, self.xds, mesh, table=table, shared=shared)
        self.enforcement.listeners.append(made.note_endpoint)
        return made

    def _make_mesh(self) -> Mesh:
        services = self.member.services if self.member else None
        made = Mesh(
            self.config.state_dir / "mesh.json",
            self.datapath.mesh,
            self.xds.accepted,
            (lambda record: services.attach(record.host_ifindex)) if services else None,
        )
        self.enforcement.listeners.append(made.note_endpoint)
        return made

    def _make_sidecars(self, repository: PolicyRepository) -> Sidecars:
        made = Sidecars(
            self.config.state_dir,
            self.config.module,
            self.xds,
            self.datapath,
            repository.identities().get,
            self.store,
            self.member.services if self.member else None,
        )
        made.load()
        self.enforcement.listeners.append(made.note)
        self.enforcement.on_owners = made.readdress
        return made

    async def _find_sources(self, repository: PolicyRepository) -> Identities:
        config = self.config
        if not config.cluster:
            self.sources = Sources(self.store, config.resources, config.state_dir)
            return LocalIdentities(repository)
        client = await connect(config.kubeconfig)
        self.sources = Member(config, client, self.store, repository)
        return self.sources.identities

    async def _keep_enforced(self) -> None:
        settle = asyncio.Event()
        self.store.subscribe(lambda _: settle.set())
        while True:  # first what came since the start
            await self.enforcement.settle()
            await settle.wait()
            settle.clear()

    async def _watch_addresses(self, watch: AddressWatch) -> None:
        loop = asyncio.get_running_loop()
        changed = asyncio.Event()
        loop.add_reader(watch.fd, changed.set)
        try:
            while True:
                await self.enforcement.set_host_addresses(await asyncio.to_thread(own_addresses))
                await changed.wait()
                watch.drain()
                changed.clear()
        finally:
            loop.remove_reader(watch.fd)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[socket.socket]:
        """The API's socket. Raises OSError."""
        path = self.config.agent_socket
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            path.chmod(0o660)  # whoever may write to it rules the node; nobody listens yet
            yield listener

    # -- endpoints ----------------------------------------------------------------------------

    async def add_endpoint(self, body: Any) -> EndpointRecord:
        """Raises BadEndpoint. The same container again keeps its endpoint."""
        table = self.enforcement.table
        known = table.by_container(body.get("container_id", "")) if isinstance(body, dict) else None
        record = parse_registration(body, known.id if known else table.next_id())
        record = await asyncio.to_thread(links.located, record)
        return await self.enforcement.add_endpoint(record, self.config.cluster)

    async def remove_endpoint(self, container_id: str) -> None:
        """None with that id is no error: CNI DEL comes more than once."""
        record = self.enforcement.table.by_container(container_id)
        if record is not None:
            await self.enforcement.remove_endpoint(record)


@contextlib.contextmanager
def _exclusive(path: Path) -> Any:
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(f"another agent runs in {path.parent}: stop it first") from None
        yield
