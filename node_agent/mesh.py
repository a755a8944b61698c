"""Services with routes: clients on this node are redirected to their listeners of Envoy's.

What goes leaves the kernel before Envoy is told. What comes is written once Envoy has taken its
listener, or after :data:`PATIENCE_SECONDS` all the same: closed is better than past the routes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

import structlog

from datapath.mesh_map import ANY_SPACE, MeshMap, ViewKey, ViewValue
from datapath.namespaces import own_cookie
from datapath.service_model import Frontend
from gateway_translator.ir import MeshFrontend, ObjectRef
from node_agent.endpoints import EndpointRecord
from node_agent.state import read_json, write_json
from policy_engine.model import Protocol
from xds_server.gateway.mesh import views
from xds_server.gateway.ports import ProxyPorts
from xds_server.resources import LISTENER_TYPE

log = structlog.get_logger(__name__)

PATIENCE_SECONDS = 1.0
_IN_USE = "Address already in use"  # strerror(EADDRINUSE), as Envoy quotes it


class _View(NamedTuple):
    """``listener``: what Envoy is to have taken before; "" if nothing."""

    value: ViewValue
    listener: str = ""


class Mesh:
    """``file`` keeps ports and numbers of namespaces: what the kernel has is by them. ``problems``
    are of Services.

    ``accepted``: whether Envoy took a resource, by type URL and name. ``translate_packets``:
    Services are translated by packet at the endpoint's interface from now on; None: nobody
    translates any.
    """

    def __init__(
        self,
        file: Path,
        kernel: MeshMap,
        accepted: Callable[[str, str], bool],
        translate_packets: Callable[[EndpointRecord], None] | None = None,
    ) -> None:
        saved = read_json(file) or {}
        self.ports = ProxyPorts(saved.get("ports"))
        self._spaces: dict[str, int] = dict(saved.get("spaces") or {})
        self.problems: dict[ObjectRef, str] = {}
        self._file, self._saved = file, (0, len(self._spaces))
        self._kernel, self._accepted = kernel, accepted
        self._translate_packets = translate_packets
        self._by_packet = False
        self._records: dict[int, EndpointRecord] = {}
        self._frontends: dict[str, MeshFrontend] = {}
        self._views: dict[str, dict[ViewKey, _View]] = {}
        self._owners: dict[ViewKey, str] = {}
        self._pending: dict[ViewKey, tuple[_View, float]] = {}
        self._swept = False
        kernel.set_host(own_cookie())

    @property
    def waits(self) -> bool:
        """Whether :meth:`step` is to be called again after :data:`PATIENCE_SECONDS`."""
        return bool(self._pending)

    def note_endpoint(self, endpoint_id: int, record: EndpointRecord | None) -> None:
        """An endpoint of this node came, changed or went."""
        if record is None:
            self._records.pop(endpoint_id, None)
            self._kernel.set_space(endpoint_id, ANY_SPACE)
            return
        self._records[endpoint_id] = record
        self._kernel.set_space(endpoint_id, self._spaces.get(record.pod_namespace, ANY_SPACE))
        if self._by_packet:
            self._attach(record)

    def take(self, changed: Mapping[str, MeshFrontend | None]) -> None:
        """Before Envoy is told of the same."""
        for name, frontend in changed.items():
            now = dict(self._views_of(frontend)) if frontend else {}
            for key in self._views.pop(name, {}).keys() - now.keys():
                self._withdraw(name, key)
            if frontend:
                self._frontends[name], self._views[name] = frontend, now
            elif before := self._frontends.pop(name, None):
                self.problems.pop(before.service, None)
            for key, view in now.items():
                self._owners[key] = name
                self._announce(key, view)

    def move(self, refused: Mapping[tuple[str, str], str]) -> dict[str, MeshFrontend | None]:
        """The frontends that have other ports now, for somebody else of the node has the old one.

        ``refused``: by type URL and name, what Envoy refuses, with its words.
        """
        taken = {
            name
            for (type_url, name), words in refused.items()
            if type_url == LISTENER_TYPE and _IN_USE in words
        }
        if not taken:
            return {}
        moved: dict[str, MeshFrontend | None] = {
            each.name: each
            for each in self._frontends.values()
            if any(listener in taken for listener, _, _ in views(each))
        }
        for name in taken:
            self.ports.give_back(name)
        self.take(moved)
        return moved

    def step(self) -> None:
        """After Envoy was told, and whenever it has answered.

        The first time everything is known: what an earlier agent left besides goes.
        """
        if not self._swept:
            self._swept = True
            for key in self._kernel.views.keys() - self._owners.keys():
                self._kernel.delete_view(key)
        now = time.monotonic()
        for key, (view, deadline) in list(self._pending.items()):
            if now >= deadline or self._accepted(LISTENER_TYPE, view.listener):
                del self._pending[key]
                self._write(key, view)
        self._save()

    def _views_of(self, frontend: MeshFrontend) -> Iterator[tuple[ViewKey, _View]]:
        for address in frontend.addresses:
            at = Frontend(ip_address(address), frontend.port, Protocol.TCP)
            if frontend.producer is None:
                yield ViewKey(at), _View(ViewValue(0, served=False))
            for listener, client, _ in views(frontend):
                space = self._space_of(client) if client else ANY_SPACE
                yield ViewKey(at, space), _View(ViewValue(self.ports.of(listener)), listener)

    def _space_of(self, namespace: str) -> int:
        """Its number, which is never another's; its endpoints have it before it has views."""
        if namespace not in self._spaces:
            self._spaces[namespace] = space = max(self._spaces.values(), default=ANY_SPACE) + 1
            for endpoint_id, record in self._records.items():
                if record.pod_namespace == namespace:
                    self._kernel.set_space(endpoint_id, space)
        return self._spaces[namespace]

    def _announce(self, key: ViewKey, view: _View) -> None:
        self._pending.pop(key, None)
        if not view.value.served and not self._by_packet:
            # Whoever has no view gets the Service all the same, which its socket leaves alone.
            self._by_packet = True
            for record in self._records.values():
                self._attach(record)
        if not view.listener:
            self._write(key, view)
        elif self._kernel.views.get(key) != view.value:
            self._pending[key] = view, time.monotonic() + PATIENCE_SECONDS

    def _withdraw(self, name: str, key: ViewKey) -> None:
        """Unless another frontend has got the address since."""
        if self._owners.get(key) == name:
            del self._owners[key]
            self._pending.pop(key, None)
            self._kernel.delete_view(key)

    def _write(self, key: ViewKey, view: _View) -> None:
        service = self._frontends[self._owners[key]].service
        problem = ""
        try:
            self._kernel.set_view(key, view.value)
        except OSError as error:
            problem = f"its routes do not hold: {error}; remove routes of Services"
        if view.listener and not view.value.proxy_port:
            problem = "closed: no port is left for its listener; remove routes of Services"
        if problem:
            log.error("Service with routes", service=str(service), error=problem)
            self.problems[service] = problem
        else:
            self.problems.pop(service, None)

    def _attach(self, record: EndpointRecord) -> None:
        if self._translate_packets:
            try:
                self._translate_packets(record)
            except OSError as error:
                log.error("Services are not translated", pod=record.pod, error=str(error))

    def _save(self) -> None:
        now = self.ports.revision, len(self._spaces)
        if now != self._saved:
            write_json(self._file, {"ports": self.ports.export(), "spaces": self._spaces})
            self._saved = now
