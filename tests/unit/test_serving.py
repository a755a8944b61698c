"""HTTP beside an event loop's other jobs: both families, until cancelled, signals untouched."""

from __future__ import annotations

import asyncio
import signal

import httpx
import pytest

from kube_store import serving
from kube_store.tasks import cancelled
from node_agent import metrics_server


async def test_metrics_to_both_families_until_cancelled() -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with serving.listen(0) as listener:
        port = listener.getsockname()[1]
        task = asyncio.create_task(metrics_server.serve(listener, lambda: b"up 1\n"))
        async with httpx.AsyncClient(timeout=5) as client:
            for host in ("127.0.0.1", "[::1]"):
                answer = await client.get(f"http://{host}:{port}/metrics")
                assert answer.text == "up 1\n"
                assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert signal.getsignal(signal.SIGTERM) is handler
        await cancelled(task)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
