"""Runs the pods of a node: attaches them by CNI, starts, restarts, probes and ends containers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from sandbox import cni, container, csi, processes
from sandbox.node import Node
from sandbox.pod import Container, Find, PodSpec, parse_pod
from sandbox.probing import passes, patience_of, period_of, threshold_of
from sandbox.segment import ip
from sandbox.volumes import Volume

log = structlog.get_logger(__name__)

_BACK_OFF = (0.2, 0.5, 1, 2, 5, 10)
_MOST_GRACE = 3.0

PodKey = tuple[str, str]  # namespace, name


@dataclass(slots=True)
class ContainerState:
    """``id`` is of its latest start; ``exit_code`` is None while it runs; times are of
    ``time.time()``; ``up`` is set once its startup probe has passed, and what is to run after its
    start has run."""

    id: str = ""
    pid: int = 0
    started: float = 0.0
    exit_code: int | None = None
    restarts: int = 0
    ready: bool = False
    up: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class RunningPod:
    """``attachment`` is None on the node's own network."""

    spec: PodSpec
    place: container.Place
    attachment: cni.Attachment | None
    addresses: list[str]
    began: float = field(default_factory=time.time)
    states: dict[str, ContainerState] = field(default_factory=dict)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    @property
    def phase(self) -> str:
        """Kubernetes documentation, "Pod Lifecycle"."""
        states = [self.states.get(each.name) for each in self.spec.containers]
        if any(state is None for state in states):
            return "Pending"
        codes = [state.exit_code for state in states if state is not None]
        if self.spec.restart == "Always" or None in codes:
            return "Running"
        if self.spec.restart == "OnFailure" and any(codes):
            return "Running"
        return "Failed" if any(codes) else "Succeeded"

    def lives(self, each: Container) -> bool:
        state = self.states.get(each.name)
        return state is not None and state.exit_code is None


Changed = Callable[[RunningPod], None]


class PodRunner:
    """``changed`` is called whenever the status of a pod may be another."""

    def __init__(self, node: Node, changed: Changed) -> None:
        self._node, self._changed = node, changed
        self.pods: dict[PodKey, RunningPod] = {}

    async def start(
        self,
        manifest: Mapping[str, Any],
        find: Find,
        files: Mapping[str, str],
        fields: Mapping[str, str] | None = None,
    ) -> RunningPod:
        """``files`` are for its ``/etc``. Raises BadPod, CniError, OSError, CalledProcessError;
        nothing of it is left then."""
        spec = parse_pod(manifest, [], find, fields)  # before anything is made
        key = (spec.namespace, spec.name)
        directory = self._node.sandbox_dir / "pods" / "_".join(key)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        for volume in filter(_is_csi, spec.volumes):  # before the network, as the kubelet does
            place = container.Place(self._node, "", directory)
            await csi.publish(self._node, spec, volume, container.volume_dir(place, volume))
        attachment, addresses = None, self._node.addresses
        netns = self._node.netns
        if not spec.host_network:
            netns = self._node.pod_netns(*key)
            attachment = cni.Attachment(f"sg-{spec.uid}", netns, *key, spec.uid)
            ip("netns", "add", netns)
            ip("link", "set", "lo", "up", netns=netns)  # as runtimes do, by the loopback plugin
            try:
                result = await asyncio.to_thread(cni.call, self._node, "ADD", attachment)
            except cni.CniError:
                ip("netns", "del", netns)
                raise
            addresses = cni.addresses(result)
        spec = parse_pod(manifest, addresses, find, fields)
        place = container.Place(self._node, netns, directory)
        for name, text in files.items():
            (directory / name).write_text(text)
        container.write_volumes(place, spec)
        pod = self.pods[key] = RunningPod(spec, place, attachment, addresses)
        pod.tasks.append(asyncio.create_task(self._run(pod)))
        return pod

    async def stop(self, key: PodKey, grace: float = _MOST_GRACE) -> None:
        """No such pod is no error."""
        pod = self.pods.pop(key, None)
        if pod is None:
            return
        for task in pod.tasks:
            task.cancel()
        hooked = any(each.pre_stop for each in pod.spec.containers)
        grace = pod.spec.grace if hooked else min(grace, pod.spec.grace)
        for group in (pod.spec.containers, pod.spec.init):  # what stays beside the others goes last
            live = [each for each in group if pod.lives(each)]
            at_once = [pod.states[each.name].pid for each in live if not each.pre_stop]
            await asyncio.gather(
                asyncio.to_thread(_end_sessions, at_once, grace),
                *(_end_after_hook(pod, each, grace) for each in live if each.pre_stop),
            )
        for started in filter(None, (state.id for state in pod.states.values())):
            container.end_rest(pod.place, pod.spec, started)
        container.end_pod(pod.place, pod.spec)
        if pod.attachment:
            with contextlib.suppress(cni.CniError):
                await asyncio.to_thread(cni.call, self._node, "DEL", pod.attachment)
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", pod.attachment.netns)
        for volume in filter(_is_csi, pod.spec.volumes):
            with contextlib.suppress(OSError):  # the driver itself may be gone
                target = container.volume_dir(pod.place, volume)
                await csi.unpublish(self._node, pod.spec, volume, target)
        shutil.rmtree(pod.place.directory, ignore_errors=True)

    async def stop_all(self) -> None:
        """Pods that have a network first: whoever takes it away runs on the node's own."""
        for on_host in (False, True):
            keys = [key for key, pod in self.pods.items() if pod.spec.host_network is on_host]
            await asyncio.gather(*(self.stop(key) for key in keys))

    def abandon(self) -> None:
        """Look after none of them any more."""
        for pod in self.pods.values():
            for task in pod.tasks:
                task.cancel()
        self.pods.clear()

    async def _run(self, pod: RunningPod) -> None:
        for each in pod.spec.init:
            if each.stays:  # Kubernetes documentation, "Sidecar Containers"
                self._begin(pod, each, "Always")
                await pod.states[each.name].up.wait()
                continue
            await self._supervise(pod, each, "OnFailure")
            if pod.states[each.name].exit_code:
                return
        for each in pod.spec.containers:
            self._begin(pod, each, pod.spec.restart)
            if each.post_start:  # the next one waits for it
                await pod.states[each.name].up.wait()

    def _begin(self, pod: RunningPod, each: Container, restart: str) -> None:
        pod.states[each.name] = ContainerState()
        pod.tasks.append(asyncio.create_task(self._supervise(pod, each, restart)))
        pod.tasks.append(asyncio.create_task(self._probe(pod, each)))

    async def _supervise(self, pod: RunningPod, each: Container, restart: str) -> None:
        """Until it ended for good."""
        state = pod.states.setdefault(each.name, ContainerState())
        for attempt in range(1_000_000):
            state.id = container.new_id()
            process = container.start(pod.place, pod.spec, each, state.id)
            state.pid, state.started, state.exit_code = process.pid, time.time(), None
            if each.post_start:
                await _within(pod, each, each.post_start)
            if "startup" not in each.probes:
                state.up.set()
            state.ready = not {"readiness", "startup"} & each.probes.keys()
            self._report(pod)
            code = await processes.ended(process)
            container.end_rest(pod.place, pod.spec, state.id)
            state.exit_code, state.ready = code, False
            state.up.clear()
            ended = restart == "Never" or (restart == "OnFailure" and code == 0)
            self._report(pod)
            if ended:
                return
            log.info("container restarts", pod=pod.spec.name, container=each.name, code=code)
            await asyncio.sleep(_BACK_OFF[min(attempt, len(_BACK_OFF) - 1)])
            state.restarts += 1

    async def _probe(self, pod: RunningPod, each: Container) -> None:
        """Ready as its probes say; what fails its startup or liveness probe is ended, to be
        started anew (Kubernetes documentation, "Liveness, Readiness, and Startup Probes")."""
        state, probes = pod.states[each.name], each.probes
        period = min((period_of(probe) for probe in probes.values()), default=0)
        up, failures, due = 0, 0, 0.0
        while probes:
            await asyncio.sleep(period if state.ready else min(period, 0.3))
            if not state.pid or state.exit_code is not None:
                continue
            if up != state.pid:
                if "startup" in probes and not await self._holds(pod, each, "startup"):
                    if time.time() > state.started + patience_of(probes["startup"]):
                        await self._end(pod, each, "startup")
                    continue
                up, failures = state.pid, 0
                state.up.set()
                self._report(pod)
                due = time.time() + period_of(probes.get("liveness", {}))
            ready = "readiness" not in probes or await self._holds(pod, each, "readiness")
            if ready != state.ready:
                state.ready = ready
                self._report(pod)
            if "liveness" in probes and time.time() >= due:
                due = time.time() + period_of(probes["liveness"])
                failures = 0 if await self._holds(pod, each, "liveness") else failures + 1
                if failures >= threshold_of(probes["liveness"]):
                    await self._end(pod, each, "liveness")

    async def _holds(self, pod: RunningPod, each: Container, kind: str) -> bool:
        pid = pod.states[each.name].pid
        return await passes(pod.place, pod.addresses, each, pid, each.probes[kind])

    async def _end(self, pod: RunningPod, each: Container, kind: str) -> None:
        log.info(f"{kind} probe failed", pod=pod.spec.name, container=each.name)
        await asyncio.to_thread(_end_sessions, [pod.states[each.name].pid], _MOST_GRACE)

    def _report(self, pod: RunningPod) -> None:
        """Also for ``sidegate sandbox exec`` and the streaming server, which read this file."""
        env = {each.name: dict(each.env) for each in pod.spec.containers}
        state = {
            "pids": {
                name: s.pid for name, s in pod.states.items() if s.exit_code is None and s.pid
            },
            "env": next(iter(env.values())),
            "containers": env,
            "addresses": pod.addresses,
        }
        with contextlib.suppress(FileNotFoundError):  # it is being removed
            path = pod.place.directory / "state.json"
            fresh = path.with_suffix(".new")
            fresh.write_text(json.dumps(state))
            fresh.rename(path)
        self._changed(pod)


async def _within(pod: RunningPod, each: Container, command: Sequence[str]) -> None:
    inside = container.enter(pod.states[each.name].pid, command, each.env)
    await processes.ended(await asyncio.to_thread(subprocess.Popen, inside))


async def _end_after_hook(pod: RunningPod, each: Container, grace: float) -> None:
    """What the hook takes is of the grace (Kubernetes documentation, "Hook handler execution")."""
    began = time.monotonic()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(_within(pod, each, each.pre_stop), grace)
    left = max(0.0, grace - (time.monotonic() - began))
    await asyncio.to_thread(_end_sessions, [pod.states[each.name].pid], left)


def _is_csi(volume: Volume) -> bool:
    return bool(volume.csi)


def _end_sessions(pids: list[int], grace: float) -> None:
    """Who is asked to end is a container's first process, as runtimes do it: what that has started
    may have to outlive the request. Each container is a session of its own, which ends with it."""
    processes.end(pids, grace)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
