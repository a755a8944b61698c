"""A proxy's admin interface, inside its pod: what its active configuration is, whenever it changes.

Nothing that is said there is believed unless the socket that answers is the proxy's container's:
once that is dead, any container of the pod may listen in its place.
"""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path

from datapath import namespaces
from node_agent.peer_process import Process
from node_agent.proof.prove import Proof, prove
from node_agent.proof.socket_owner import cgroup_of_peer

_ADDRESS = ("127.0.0.1", 15000)
_SECONDS = 2.0
# What moves with listeners and clusters. Istio lets no statistics of routes be: these say when each
# was replaced.
_STATISTICS = (
    "/stats?filter=^(cluster_manager.(cds.version|cluster_(added|modified|removed|updated))"
    "|listener_manager.(lds.version|listener_\\w%2B|total_\\w%2B)):?$"
)
_ROUTES = "/config_dump?resource=dynamic_route_configs&mask=last_updated"


class Admin:
    """The connection is kept. All methods block, for the time of one answer at most."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._connection: http.client.HTTPConnection | None = None
        self._seen: tuple[bytes, bytes] | None = None

    def changed(self) -> Proof | None:
        """What is proven now; None: still the same. Raises OSError: it does not answer, or
        somebody else does."""
        try:
            seen = self._get(_STATISTICS), self._get(_ROUTES)
            if seen == self._seen:
                return None
            proof = prove(json.loads(self._get("/config_dump")))
        except (http.client.HTTPException, ValueError) as error:
            self.close()
            raise OSError(f"its admin interface answers nonsense: {error!r}") from None
        except OSError:
            self.close()
            raise
        self._seen = seen
        return proof

    def close(self) -> None:
        """The next question connects, and looks at everything, anew."""
        self._seen = None
        if self._connection:
            self._connection.close()
            self._connection = None

    def _get(self, path: str) -> bytes:
        if self._connection is None:
            connection = http.client.HTTPConnection(*_ADDRESS, timeout=_SECONDS)
            namespace = Path(f"/proc/{self._process.pid}/ns/net")
            connection.sock = namespaces.inside(namespace, self._connect)
            self._connection = connection
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != http.client.OK:
            raise OSError(f"its admin interface answers {answer.status}")
        return body

    def _connect(self) -> socket.socket:
        made = socket.create_connection(_ADDRESS, _SECONDS)
        try:
            owner = cgroup_of_peer(made)
            if owner != self._process.cgroup_id:
                raise PermissionError(
                    f"who answers on {_ADDRESS[0]}:{_ADDRESS[1]} is in cgroup {owner}, not in the "
                    f"proxy's, {self._process.cgroup_id}"
                )
        except OSError:
            made.close()
            raise
        return made
