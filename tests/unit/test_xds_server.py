"""The server over its socket, with an Envoy and a module played by the test."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.service.discovery.v3 import ads_pb2_grpc
from envoy.service.discovery.v3 import discovery_pb2 as discovery

from policy_engine.model import DirectionPolicy, EndpointPolicy
from sidegate_api.policy.v1 import policy_pb2 as pb
from sidegate_api.policy.v1 import policy_pb2_grpc as pb_grpc
from xds_server.resources import LISTENER_TYPE
from xds_server.server import XdsServer

HELLO = pb.PolicyRequest(hello=pb.Hello(node="n", protocol_version=1, module_version="0"))


@dataclass
class Rig:
    server: XdsServer
    batches: list[pb.VerdictBatch]
    channel: grpc.aio.Channel

    def module(self) -> Any:
        return self.policy_stub().StreamPolicies()

    def policy_stub(self) -> Any:
        """Untyped: grpc-stubs do not know that an asyncio stream may be called without requests."""
        return pb_grpc.PolicyServiceStub(self.channel)

    async def envoy(self, variant: str = "Delta", node: str = "n") -> Any:
        """An ADS stream that has asked for listeners."""
        stub = ads_pb2_grpc.AggregatedDiscoveryServiceStub(self.channel)
        stream = getattr(stub, f"{variant}AggregatedResources")()
        kind = discovery.DeltaDiscoveryRequest if variant == "Delta" else discovery.DiscoveryRequest
        await stream.write(kind(node=base_pb2.Node(id=node), type_url=LISTENER_TYPE))
        return stream


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="sgx") as folder:
        path = Path(folder) / "xds.sock"
        batches: list[pb.VerdictBatch] = []
        server = XdsServer(path, batches.append)
        server.set_resources(LISTENER_TYPE, {"a": listener_pb2.Listener(name="a")})
        server.publish_policy(EndpointPolicy(7, 256, DirectionPolicy(), DirectionPolicy(), {}, 1))
        await server.start()
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            yield Rig(server, batches, channel)
        await server.stop()
        assert not path.exists()


@pytest.mark.parametrize("variant", ["Delta", "Stream"])
async def test_envoy_waits_for_the_policies_of_its_module(rig: Rig, variant: str) -> None:
    envoy = await rig.envoy(variant)
    response = asyncio.ensure_future(envoy.read())
    module = rig.module()
    await module.write(HELLO)
    first = await module.read()
    assert (first.full, [p.endpoint_id for p in first.upserts]) == (True, [7])
    await asyncio.sleep(0.1)
    assert not response.done()
    assert rig.server.status()["clients"][0]["held"]

    await module.write(pb.PolicyRequest(ack=pb.Ack(nonce=first.nonce)))
    assert len((await asyncio.wait_for(response, 1)).resources) == 1
    assert await rig.server.policy_acknowledged(7, 1, timeout=1)


async def test_envoy_does_not_wait_for_ever(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.server._ads, "_hold_seconds", 0.1)
    envoy = await rig.envoy(node="no-module")
    assert (await asyncio.wait_for(envoy.read(), 2)).type_url == LISTENER_TYPE


async def test_status_follows_a_stream(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rig.server._ads, "_hold_seconds", 0)
    assert not rig.server.status()["resources"][0]["acknowledged"], "nobody has it"
    envoy = await rig.envoy()
    response = await envoy.read()
    request = discovery.DeltaDiscoveryRequest(type_url=LISTENER_TYPE, response_nonce=response.nonce)
    request.error_detail.message = "no"
    await envoy.write(request)
    async with asyncio.timeout(2):
        while not rig.server.status()["resources"][0]["errors"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    rig.server.set_resources(LISTENER_TYPE, {"a": listener_pb2.Listener(name="a", stat_prefix="2")})
    response = await envoy.read()
    assert rig.server.status()["resources"][0]["errors"] == {"n": "no"}
    await envoy.write(
        discovery.DeltaDiscoveryRequest(type_url=LISTENER_TYPE, response_nonce=response.nonce)
    )
    rig.server.set_resources(LISTENER_TYPE, {})
    assert list((await envoy.read()).removed_resources) == ["a"]
    assert rig.server.counters["xds_nacks"] == 1
    envoy.cancel()
    for _ in range(100):
        if not rig.server.status()["clients"]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("a client that left is still shown")


@pytest.mark.parametrize(
    ("requests", "code", "message"),
    [
        (
            [pb.PolicyRequest(ack=pb.Ack(nonce=1))],
            grpc.StatusCode.INVALID_ARGUMENT,
            "begin with hello",
        ),
        (
            [pb.PolicyRequest(hello=pb.Hello(protocol_version=9))],
            grpc.StatusCode.FAILED_PRECONDITION,
            "Hello.protocol_version 9",
        ),
        (
            [pb.PolicyRequest(hello=pb.Hello(module_version="0"))],
            grpc.StatusCode.FAILED_PRECONDITION,
            "Hello.protocol_version 0: this agent speaks 1 to 2: restart the pod",
        ),
        (
            [HELLO, pb.PolicyRequest(ack=pb.Ack(nonce=5))],
            grpc.StatusCode.INVALID_ARGUMENT,
            "Ack.nonce 5",
        ),
    ],
)
async def test_a_module_that_breaks_the_protocol_is_told(
    rig: Rig, requests: list[pb.PolicyRequest], code: grpc.StatusCode, message: str
) -> None:
    module = rig.module()
    for request in requests:
        await module.write(request)
    with contextlib.suppress(grpc.aio.AioRpcError):
        async for _ in module:
            pass
    assert await module.code() is code
    assert message in await module.details()
    assert rig.server.status()["clients"] == []


async def test_policy_changes_are_counted_by_message(rig: Rig) -> None:
    module = rig.module()
    await module.write(HELLO)
    await module.read()
    before = rig.server.counters.copy()
    rig.server.publish_policy(EndpointPolicy(8, 257, DirectionPolicy(), DirectionPolicy(), {}, 2))
    change = await module.read()
    assert [p.endpoint_id for p in change.upserts] == [8]
    assert rig.server.counters["policy_messages"] - before["policy_messages"] == 1
    assert rig.server.counters["policy_bytes"] - before["policy_bytes"] == change.ByteSize()


async def test_verdicts_are_handed_on_and_counted(rig: Rig) -> None:
    stream = rig.policy_stub().StreamVerdicts()
    sent = [
        pb.VerdictBatch(node="n", records=[pb.VerdictRecord(count=1)] * 2),
        pb.VerdictBatch(node="n", lost=3),
    ]
    for batch in sent:
        await stream.write(batch)
    await stream.done_writing()
    assert (await stream).received == 2
    assert rig.batches == sent
    assert rig.server.counters["verdict_records"] == 2
    assert rig.server.counters["verdicts_lost"] == 3


async def test_a_path_too_long_for_a_socket_is_said() -> None:
    with pytest.raises(OSError, match="107 bytes"):
        await XdsServer(Path("/" + "x" * 200), lambda _: None).start()
