"""A transparent TCP proxy in Envoy's place: same listeners, marks and client-address upstreams."""

from __future__ import annotations

import contextlib
import socket
import threading

from datapath.consts import MARK_FROM_PROXY, MARK_UPSTREAM
from tests.system.netns import inside

_IP_TRANSPARENT, _IPV6_TRANSPARENT, _IP_FREEBIND, _IPV6_FREEBIND = 19, 75, 15, 78


def _transparent(family: socket.AddressFamily, mark: int = MARK_FROM_PROXY) -> socket.socket:
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET:
        made.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
    else:
        made.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
    return made


class StandIn:
    """Puts ``P`` before what the server answers, so that a test sees which way it went."""

    def __init__(self, netns: str, port: int = 15001) -> None:
        self._netns = netns
        self._open: list[socket.socket] = []
        with inside(netns):
            for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                listener = _transparent(family)
                listener.bind((host, port))
                listener.listen(64)
                self._open.append(listener)
                threading.Thread(target=self._serve, args=(listener,), daemon=True).start()

    def close(self) -> None:
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                client, peer = listener.accept()
            except OSError:
                return
            self._open.append(client)
            threading.Thread(target=self._relay, args=(client, peer[0]), daemon=True).start()

    def _relay(self, client: socket.socket, source: str) -> None:
        with inside(self._netns):
            server = _transparent(client.family, MARK_FROM_PROXY | MARK_UPSTREAM)
        server.settimeout(3)
        self._open.append(server)
        try:
            server.bind((source, 0))
            server.connect(client.getsockname()[:2])
            while data := client.recv(4096):
                server.sendall(data)
                client.sendall(b"P" + server.recv(4096))
        except OSError:
            pass
        finally:
            client.close()
            server.close()
