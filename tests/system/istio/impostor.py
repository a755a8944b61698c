"""Listens where a pod's proxy does for what comes in, and answers everything; until stdin ends."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import socket
import sys
import threading
import time

PORT = 15006
_SHARED = 8  # sockets: as many as an Envoy of some threads has
_ANSWER = b"HTTP/1.1 218 Stolen\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--user", type=int, help="share the port with this user's proxy")
    user = arguments.parse_args().user
    if user:
        os.setuid(user)
    print("begun", flush=True)
    threading.Thread(target=_take, args=(user is not None,), daemon=True).start()
    sys.stdin.read()


def _take(shared: bool) -> None:
    listeners = [_listener(shared) for _ in range(_SHARED if shared else 1)]
    print("taken", flush=True)
    for each in listeners:
        threading.Thread(target=_serve, args=(each,), daemon=True).start()


def _listener(shared: bool) -> socket.socket:
    """Once the port can be had."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    while True:
        try:
            made.bind(("0.0.0.0", PORT))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            time.sleep(0.01)
        else:
            made.listen()
            return made


def _serve(listener: socket.socket) -> None:
    while True:
        client, _ = listener.accept()
        with client, contextlib.suppress(OSError):
            client.recv(4096)
            client.sendall(_ANSWER)


if __name__ == "__main__":
    main()
