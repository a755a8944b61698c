"""Acts as the kubelet of a cluster's node: it runs the pods that the scheduler bound to it."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Mapping
from typing import Any

import aiohttp
import structlog
from kubernetes.aio import client, watch
from kubernetes.aio.client import ApiException

from sandbox import cni, node_object, pod_status
from sandbox.node import Node
from sandbox.pod import BadPod
from sandbox.runner import PodKey, PodRunner, RunningPod
from sandbox.volumes import references

log = structlog.get_logger(__name__)

_LEASE_SECONDS = 10.0
_RETRY_SECONDS = 1.0
_MERGE = "application/merge-patch+json"


class ClusterKubelet:
    """``api`` speaks as ``system:node:NAME``; ``server`` is what pods are told of the API server.

    ``host`` and ``port`` of the API server go to pods on the node's own network, which cannot wait
    for somebody to translate its Service; the others get the Service.
    """

    def __init__(self, node: Node, api: client.ApiClient, server: tuple[str, int]) -> None:
        self._node, self._server = node, server
        # Any: what is sent and read is plain JSON, as the rest of the sandbox has it.
        self._core: Any = client.CoreV1Api(api)
        self._leases: Any = client.CoordinationV1Api(api)
        self._api: Any = api
        self._streams: Any = watch
        self._runner = PodRunner(node, self._changed)
        self._wanted: dict[PodKey, dict[str, Any]] = {}
        self._workers: dict[PodKey, asyncio.Task[None]] = {}
        self._dirty: dict[PodKey, asyncio.Event] = {}

    async def run(self) -> None:
        """Until cancelled; its pods have ended then, unless they were abandoned."""
        await self._register()
        tasks = [asyncio.create_task(each) for each in (self._heartbeat(), self._watch())]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in [*tasks, *self._workers.values()]:
                task.cancel()
            await self._runner.stop_all()

    def abandon(self) -> None:
        """As a loss of power does: no pod is ended, no plugin called."""
        self._runner.abandon()

    async def _register(self) -> None:
        manifest = node_object.manifest(self._node)
        with contextlib.suppress(ApiException):  # it is there from before
            await self._core.create_node(manifest)
        await self._node_status()

    async def _node_status(self) -> None:
        ready = cni.network(self._node) is not None
        await self._core.patch_node_status(
            self._node.name, node_object.status(self._node, ready), _content_type=_MERGE
        )

    async def _heartbeat(self) -> None:
        """The node's status as soon as its network is configured, then a Lease now and then."""
        ready = False
        while True:
            configured = cni.network(self._node) is not None
            try:
                if configured != ready:
                    await self._node_status()
                    ready = configured
                await self._renew()
            except (ApiException, aiohttp.ClientError, OSError) as error:
                log.warning("the node cannot be reported", node=self._node.name, error=_said(error))
            for _ in range(int(_LEASE_SECONDS / 0.2)):
                await asyncio.sleep(0.2)
                if (cni.network(self._node) is not None) != ready:
                    break

    async def _renew(self) -> None:
        lease = node_object.lease(self._node)
        try:
            await self._leases.patch_namespaced_lease(
                self._node.name, "kube-node-lease", lease, _content_type=_MERGE
            )
        except ApiException as error:
            if error.status != 404:
                raise
            await self._leases.create_namespaced_lease("kube-node-lease", lease)

    async def _watch(self) -> None:
        selector = f"spec.nodeName={self._node.name}"
        while True:
            try:
                listed = await self._core.list_pod_for_all_namespaces(field_selector=selector)
                there = {}
                for item in listed.items:
                    pod = self._api.sanitize_for_serialization(item)
                    there[_key(pod)] = pod
                for gone in self._wanted.keys() - there.keys():
                    self._gone(gone)
                for pod in there.values():
                    self._seen(pod)
                stream = self._streams.Watch().stream(
                    self._core.list_pod_for_all_namespaces, field_selector=selector,
                    resource_version=listed.metadata.resource_version,
                )  # fmt: skip
                async for event in stream:
                    pod = event["raw_object"]
                    if event["type"] == "DELETED":
                        self._gone(_key(pod))
                    elif event["type"] in ("ADDED", "MODIFIED"):
                        self._seen(pod)
            except (ApiException, aiohttp.ClientError, TimeoutError, OSError) as error:
                log.warning("pods cannot be watched", node=self._node.name, error=_said(error))
            await asyncio.sleep(_RETRY_SECONDS)

    def _seen(self, pod: dict[str, Any]) -> None:
        key = _key(pod)
        before = self._wanted.get(key)
        self._wanted[key] = pod
        if before and before["metadata"]["uid"] != pod["metadata"]["uid"]:
            self._gone(key)
            self._wanted[key] = pod
        self._dirty.setdefault(key, asyncio.Event()).set()
        if key not in self._workers or self._workers[key].done():
            self._workers[key] = asyncio.create_task(self._work(key))
            self._workers[key].add_done_callback(_ended)

    def _gone(self, key: PodKey) -> None:
        self._wanted.pop(key, None)
        if key in self._dirty:
            self._dirty[key].set()

    def _changed(self, pod: RunningPod) -> None:
        key = (pod.spec.namespace, pod.spec.name)
        if key in self._dirty:
            self._dirty[key].set()

    async def _work(self, key: PodKey) -> None:
        """One pod's life: started, told of, ended."""
        said: Any = None
        uid = self._wanted[key]["metadata"]["uid"]
        while True:
            await self._dirty[key].wait()
            self._dirty[key].clear()
            manifest = self._wanted.get(key)
            if manifest is None or manifest["metadata"]["uid"] != uid:
                await self._runner.stop(key, grace=0.5)
                if manifest is None:
                    self._dirty.pop(key, None)
                    self._workers.pop(key, None)
                    return
                uid, said = manifest["metadata"]["uid"], None
            if manifest["metadata"].get("deletionTimestamp"):
                await self._runner.stop(key)
                await self._confirm_deletion(key, uid)
                continue
            if (manifest.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
                continue
            if key not in self._runner.pods:
                problem = await self._start(manifest)
                if problem:
                    said = await self._tell(key, pod_status.waiting(manifest, problem), said)
                    asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._dirty[key].set)
                    continue
            pod = self._runner.pods[key]
            said = await self._tell(key, pod_status.status(manifest, pod, self._node), said)

    async def _start(self, manifest: dict[str, Any]) -> str:
        """Why it cannot start now, or nothing."""
        namespace = manifest["metadata"]["namespace"]
        try:
            found = await self._references(manifest)
            await self._runner.start(
                manifest,
                lambda kind, _, name: found.get((kind, name)),
                self._files(manifest),
                self._fields(manifest),
            )
        except (BadPod, cni.CniError, ApiException, aiohttp.ClientError, OSError,
                subprocess.CalledProcessError) as error:  # fmt: skip
            log.error("pod not started", pod=f"{namespace}/{manifest['metadata']['name']}",
                      error=_said(error))  # fmt: skip
            return _said(error)
        return ""

    async def _references(self, manifest: dict[str, Any]) -> dict[tuple[str, str], Any]:
        namespace, found = manifest["metadata"]["namespace"], {}
        for kind, name in references(manifest):
            try:
                if kind == "Token":
                    found[kind, name] = {"data": {"token": await self._token(manifest, name)}}
                else:
                    read = (self._core.read_namespaced_config_map if kind == "ConfigMap"
                            else self._core.read_namespaced_secret)  # fmt: skip
                    found[kind, name] = self._api.sanitize_for_serialization(
                        await read(name, namespace)
                    )
            except ApiException as error:
                if error.status != 404:
                    raise
        return found

    async def _token(self, manifest: dict[str, Any], audience: str) -> str:
        """Bound to the pod, as the kubelet asks for it (API: TokenRequest)."""
        metadata = manifest["metadata"]
        bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"],
                 "uid": metadata["uid"]}  # fmt: skip
        spec: dict[str, Any] = {"expirationSeconds": 24 * 3600, "boundObjectRef": bound,
                                "audiences": [audience] if audience else []}  # fmt: skip
        made = await self._core.create_namespaced_service_account_token(
            manifest["spec"].get("serviceAccountName", "default"), metadata["namespace"],
            {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec},
        )  # fmt: skip
        return str(made.status.token)

    def _fields(self, manifest: Mapping[str, Any]) -> dict[str, str]:
        host, port = self._server
        if not manifest["spec"].get("hostNetwork"):
            host, port = node_object.API_SERVICE, 443
        return {
            "spec.nodeName": self._node.name,
            "status.hostIP": self._node.addresses[0],
            "status.hostIPs": ",".join(self._node.addresses),
            "env:KUBERNETES_SERVICE_HOST": host,
            "env:KUBERNETES_SERVICE_PORT": str(port),
            "env:KUBERNETES_SERVICE_PORT_HTTPS": str(port),
        }

    @staticmethod
    def _files(manifest: Mapping[str, Any]) -> dict[str, str]:
        spec, namespace = manifest["spec"], manifest["metadata"]["namespace"]
        files = {"hosts": "127.0.0.1 localhost\n::1 localhost\n"}
        if not spec.get("hostNetwork") and spec.get("dnsPolicy", "ClusterFirst") == "ClusterFirst":
            files["resolv.conf"] = (
                f"nameserver {node_object.DNS_SERVICE}\n"
                f"search {namespace}.svc.cluster.local svc.cluster.local cluster.local\n"
                "options ndots:5\n"
            )
        return files

    async def _tell(self, key: PodKey, status: dict[str, Any], said: Any) -> Any:
        if status == said:
            return said
        namespace, name = key
        try:
            await self._core.patch_namespaced_pod_status(
                name, namespace, {"status": status}, _content_type=_MERGE
            )
        except (ApiException, aiohttp.ClientError, OSError) as error:
            if getattr(error, "status", 0) != 404:
                asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._dirty[key].set)
            return said
        return status

    async def _confirm_deletion(self, key: PodKey, uid: str) -> None:
        namespace, name = key
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": uid}}
        try:
            await self._core.delete_namespaced_pod(name, namespace, body=options)
        except (ApiException, aiohttp.ClientError, OSError) as error:
            if getattr(error, "status", 0) not in (404, 409) and key in self._dirty:
                asyncio.get_running_loop().call_later(_RETRY_SECONDS, self._dirty[key].set)


def _key(pod: Mapping[str, Any]) -> PodKey:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


def _ended(worker: asyncio.Task[None]) -> None:
    if not worker.cancelled() and (error := worker.exception()):
        log.error("a pod is looked after no more", error=repr(error), exc_info=error)


def _said(error: Exception) -> str:
    """The API server's own words, without its headers."""
    if isinstance(error, ApiException):
        return f"{error.status}: {error.body or error.reason}"
    return str(error) or type(error).__name__
