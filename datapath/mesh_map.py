"""Services with routes, as ``bpf/mesh.h`` lays them out: whom the veth redirects."""

from __future__ import annotations

import struct
from typing import NamedTuple

from datapath.libbpf import Map
from datapath.service_codec import frontend_of, l4_addr
from datapath.service_model import Frontend

ANY_SPACE = 0
"""The space of clients whose namespace has no view of its own."""
_KEY = struct.Struct("<24sI4x")
_VIEW = struct.Struct("<HBx")


class ViewKey(NamedTuple):
    """``space``: number of the clients' namespace."""

    frontend: Frontend
    space: int = ANY_SPACE

    def pack(self) -> bytes:
        return _KEY.pack(l4_addr(*self.frontend), self.space)

    @classmethod
    def unpack(cls, raw: bytes) -> ViewKey:
        frontend, space = _KEY.unpack(raw)
        return cls(frontend_of(frontend), space)


class ViewValue(NamedTuple):
    """``proxy_port``: of the listener on loopback; 0: closed. ``served`` is False of a view of any
    that only says that others have one."""

    proxy_port: int
    served: bool = True

    def pack(self) -> bytes:
        return _VIEW.pack(self.proxy_port, self.served)

    @classmethod
    def unpack(cls, raw: bytes) -> ViewValue:
        port, served = _VIEW.unpack(raw)
        return cls(port, bool(served))


class MeshMap:
    """What the kernel has, also of an earlier agent; only what differs is written.

    A frontend that has views has one of any (:data:`ANY_SPACE`).
    """

    def __init__(self, views: Map, spaces: Map, host: Map) -> None:
        self._views, self._spaces, self._host = views, spaces, host
        self.views = {ViewKey.unpack(key): ViewValue.unpack(raw) for key, raw in views.items()}

    def set_view(self, key: ViewKey, value: ViewValue) -> None:
        """Raises BpfError if the map is full."""
        if self.views.get(key) != value:
            self._views.set(key.pack(), value.pack())
            self.views[key] = value

    def delete_view(self, key: ViewKey) -> None:
        """One that is not there is no error."""
        if self.views.pop(key, None) is not None:
            self._views.delete(key.pack())

    def set_space(self, endpoint_id: int, space: int) -> None:
        """Of an endpoint from now on; :data:`ANY_SPACE` if its namespace has none."""
        key = endpoint_id.to_bytes(4, "little")
        if space == ANY_SPACE:
            self._spaces.delete(key)
        else:
            self._spaces.set(key, space.to_bytes(4, "little"))

    def set_host(self, cookie: int) -> None:
        """Processes of this network namespace are no clients: their packets meet no veth."""
        self._host.set(bytes(4), cookie.to_bytes(8, "little"))

    def clear(self) -> None:
        """Nobody is redirected."""
        for key in list(self.views):
            self.delete_view(key)
