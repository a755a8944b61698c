"""Clients of a Gateway that count what goes wrong: ``SECONDS ADDRESS HTTP HTTPS CA``.

On HTTP and on HTTPS each, one client keeps its connection and another dials for every request; the
certificate is verified by the file CA. JSON on standard output: requests, and how often each
failure was seen.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import sys
import threading
import time
from collections import Counter

HOST = "churn.test"
_PAUSE_SECONDS = 0.002


class _Named(http.client.HTTPSConnection):
    """Dials an address, and says and verifies a name."""

    def __init__(self, address: str, port: int, context: ssl.SSLContext) -> None:
        super().__init__(HOST, port, timeout=20, context=context)
        self._where, self._by = (address, port), context

    def connect(self) -> None:
        plain = socket.create_connection(self._where, 20)
        self.sock = self._by.wrap_socket(plain, server_hostname=HOST)


def main() -> None:
    seconds, address, plain, secure, ca = sys.argv[1:]
    context = ssl.create_default_context(cafile=ca)
    end = time.monotonic() + float(seconds)
    found: Counter[str] = Counter()
    lock = threading.Lock()

    def connect(tls: bool) -> http.client.HTTPConnection:
        if tls:
            return _Named(address, int(secure), context)
        return http.client.HTTPConnection(address, int(plain), timeout=20)

    def ask(tls: bool, keep: bool) -> None:
        seen: Counter[str] = Counter()
        connection = connect(tls)
        kind = f"{'HTTPS' if tls else 'HTTP'}, {'kept' if keep else 'new'}"
        while time.monotonic() < end:
            try:
                connection.request("GET", "/", headers={"Host": HOST})
                answer = connection.getresponse()
                answer.read()
                seen["ok" if answer.status == 200 else f"{kind}: {answer.status}"] += 1
                if not keep:
                    connection.close()
            except (OSError, http.client.HTTPException) as error:
                seen[f"{kind}: {error!r}"] += 1
                connection.close()
                connection = connect(tls)
            time.sleep(_PAUSE_SECONDS)
        with lock:
            found.update(seen)

    threads = [
        threading.Thread(target=ask, args=(tls, keep))
        for tls in (False, True)
        for keep in (False, True)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    ok = found.pop("ok", 0)
    print(json.dumps({"ok": ok, "failures": dict(found)}))


if __name__ == "__main__":
    main()
