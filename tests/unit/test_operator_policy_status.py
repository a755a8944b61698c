"""The operator's status of policies, as the API server is told it."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from cluster_operator.events import Events
from cluster_operator.policy_status import PolicyStatus
from kube_store.resource import Resource, identify
from kube_store.shared import REPORT
from kube_store.store import Store
from kube_store.tasks import cancelled
from tests.unit.fake_api_server import fake_api_server, status
from tests.unit.test_store_both_sources import until


def resource(manifest: dict[str, Any]) -> Resource:
    key, _ = identify(manifest)
    assert key
    return Resource(key, manifest)


def policy(name: str, spec: dict[str, Any]) -> Resource:
    metadata = {"name": name, "namespace": "shop", "generation": 1, "uid": name}
    return resource({"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy",
                     "metadata": metadata, "spec": spec})  # fmt: skip


def report(node: str, **policies: bool) -> Resource:
    limits = {"limited": "default/a: in ambient mode"}
    said = {f"cnp/shop/{name}": {"generation": 1, "valid": True, "enforced": enforced,
                                 "limits": limits.get(name, "")}
            for name, enforced in policies.items()}  # fmt: skip
    return resource({"apiVersion": "policy.sidegate.io/v2", "kind": REPORT,
                     "metadata": {"name": node}, "policies": said})  # fmt: skip


async def test_a_status_that_is_refused_holds_up_no_other() -> None:
    """Conditions by policy, of two nodes; the API server takes none of the policy ``poison``."""
    refused = 0

    async def refuse(request: web.Request) -> web.StreamResponse | None:
        nonlocal refused
        if "/poison/" not in request.path:
            return None
        refused += 1
        return await status(403)(request)

    async with fake_api_server() as server:
        server.always = refuse
        client, store = server.client(), Store()
        made = PolicyStatus(client, store, Events(client, "test"))
        running = asyncio.create_task(made.run())
        names = ["poison", "good", "waits", "limited"]
        store.apply([policy(name, {"endpointSelector": {}, "ingress": []}) for name in names])
        store.apply([policy("wrong", {"endpointSelector": 7, "ingress": []})])
        store.apply(
            [
                report("n1", good=True, waits=True, limited=True),
                report("n2", good=True, waits=False, limited=True),
            ]
        )

        def said() -> dict[str, dict[str, str]]:
            return {
                path.split("/")[-2]: {
                    c["type"]: f"{c['status']} {c['message']}" for c in body["status"]["conditions"]
                }
                for path, body in server.bodies
                if path.endswith("/status")
            }

        await until(lambda: {"good", "waits", "wrong", "limited"} <= said().keys())
        assert said()["good"] == {"Valid": "True ", "Enforced": "True 2/2 nodes"}
        assert said()["waits"]["Enforced"] == "False 1/2 nodes; not yet on n2"
        assert "spec.endpointSelector" in said()["wrong"]["Valid"]
        assert said()["limited"]["Limited"] == "True default/a: in ambient mode"
        assert said()["limited"]["Enforced"] == "True 2/2 nodes"
        await until(lambda: refused > 1)
        server.always = None
        await until(lambda: "poison" in said())
        await cancelled(running)
        await client.close()
