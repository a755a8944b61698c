"""All of the IR at one moment, and what changed between two."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gateway_translator.ir.backend import Cluster, EndpointSet
from gateway_translator.ir.http import RouteTable, VirtualHost
from gateway_translator.ir.listener import Listener, MeshFrontend
from gateway_translator.ir.tls import Certificate, TrustBundle


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything by its name; ``virtual_hosts`` by (table, hostname).

    Names that are referred to are here, but for secrets that went since: those chains are gone too.
    """

    listeners: Mapping[str, Listener] = field(default_factory=dict)
    tables: Mapping[str, RouteTable] = field(default_factory=dict)
    virtual_hosts: Mapping[tuple[str, str], VirtualHost] = field(default_factory=dict)
    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    endpoints: Mapping[str, EndpointSet] = field(default_factory=dict)
    certificates: Mapping[str, Certificate] = field(default_factory=dict)
    trust: Mapping[str, TrustBundle] = field(default_factory=dict)
    mesh: Mapping[str, MeshFrontend] = field(default_factory=dict)

    def all_listeners(self) -> Iterator[Listener]:
        """Those of the mesh too."""
        yield from self.listeners.values()
        for frontend in self.mesh.values():
            yield from frontend.listeners()


@dataclass(frozen=True, slots=True)
class Delta:
    """As :class:`Snapshot`, of what changed alone; None: it is gone."""

    listeners: Mapping[str, Listener | None] = field(default_factory=dict)
    tables: Mapping[str, RouteTable | None] = field(default_factory=dict)
    virtual_hosts: Mapping[tuple[str, str], VirtualHost | None] = field(default_factory=dict)
    clusters: Mapping[str, Cluster | None] = field(default_factory=dict)
    endpoints: Mapping[str, EndpointSet | None] = field(default_factory=dict)
    certificates: Mapping[str, Certificate | None] = field(default_factory=dict)
    trust: Mapping[str, TrustBundle | None] = field(default_factory=dict)
    mesh: Mapping[str, MeshFrontend | None] = field(default_factory=dict)
