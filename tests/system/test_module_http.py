"""HTTP policy in a real Envoy: allow, deny, change, and every way to fail closed."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import grpc
import pytest

from sidegate_api.policy.v1 import policy_pb2 as pb
from tests.system.module_rig import (
    CLIENT_IDENTITY,
    SERVER_ID,
    SERVER_IDENTITY,
    STRANGER,
    WORLD,
    Agent,
    Rig,
    connection,
    endpoint_policy,
    get,
    rig,
)

pytestmark = pytest.mark.system


async def probe(made: Rig, path: str, http2: bool = False) -> int:
    async with made.client(http2=http2) as client:
        return (await client.get(path)).status_code


@pytest.mark.parametrize("upstream_filter", [False, True], ids=["downstream", "upstream"])
@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
async def test_allows_and_denies(tmp_path: Path, http2: bool, upstream_filter: bool) -> None:
    async with rig(tmp_path, upstream_filter=upstream_filter) as made:
        ack = await made.agent.push(endpoint_policy(get("/v1/.*")), full=True)
        assert not ack.errors
        assert (await made.agent.hello).node == "rig"
        async with made.client(http2=http2) as client:
            allowed = await client.get("/v1/orders?limit=1")
            assert (allowed.status_code, allowed.text) == (200, "GET /v1/orders?limit=1")
            denied = await client.get("/admin")
            assert denied.status_code == 403
            assert denied.headers["content-type"].startswith("text/plain")
            assert denied.text == "Denied by Sidegate policy (ingress): no rule allows it.\n"
            slipped = await client.get("/v1/%2e%2e/admin")
            assert slipped.status_code == 403
        async with made.client(STRANGER, http2=http2) as client:
            assert (await client.get("/v1/orders")).status_code == 403
        record = await made.agent.record(verdict=pb.VERDICT_ALLOWED)
        assert record.http.path == "/v1/orders?limit=1"
        assert (record.http.method, record.http.status) == ("GET", 200)
        assert record.http.protocol == ("HTTP/2" if http2 else "HTTP/1.1")
        assert (record.reason, record.rule) == (pb.REASON_RULE, "cnp/test/rule")
        assert (record.endpoint_id, record.revision) == (SERVER_ID, 1)
        assert (record.source_identity, record.destination_identity) == (
            CLIENT_IDENTITY,
            SERVER_IDENTITY,
        )
        assert record.source_address == bytes([127, 0, 0, 1])
        assert record.destination_port == made.port
        assert record.latency_nanos > 0
        stranger = await made.agent.record(source_identity=WORLD)
        assert (stranger.verdict, stranger.reason) == (pb.VERDICT_DENIED, pb.REASON_NO_RULE)
        assert stranger.http.status == 403


@pytest.mark.parametrize("upstream_filter", [False, True], ids=["downstream", "upstream"])
async def test_grpc_is_told_in_its_own_words(tmp_path: Path, upstream_filter: bool) -> None:
    async with rig(tmp_path, upstream_filter=upstream_filter) as made:
        rule = pb.HttpRule(method="POST", path="/shop.Orders/Get")
        await made.agent.push(endpoint_policy(rule), full=True)
        async with grpc.aio.insecure_channel(made.url.removeprefix("http://")) as channel:
            assert await channel.unary_unary("/shop.Orders/Get", None, None)(b"hello") == b"hello"
            with pytest.raises(grpc.aio.AioRpcError) as denied:
                await channel.unary_unary("/shop.Orders/Delete", None, None)(b"hello")
        assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "Sidegate policy" in (denied.value.details() or "")


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
async def test_a_live_connection_follows_the_newest_policy(tmp_path: Path, http2: bool) -> None:
    async with rig(tmp_path) as made, made.client(http2=http2) as client:
        for revision in range(1, 11):
            open_now = revision % 2 == 1
            policy = endpoint_policy(get("/a" if open_now else "/b"), revision=revision)
            await made.agent.push(policy, full=revision == 1)
            assert (await client.get("/a")).status_code == (200 if open_now else 403), revision


async def test_a_changed_identity_counts_at_once(tmp_path: Path) -> None:
    async with rig(tmp_path) as made, made.client() as client:
        await made.agent.push(endpoint_policy(get("/a")), full=True)
        assert (await client.get("/a")).status_code == 200
        made.ipcache.put("127.0.0.1", 4242)
        assert (await client.get("/a")).status_code == 403
        made.ipcache.put("127.0.0.1", CLIENT_IDENTITY)
        assert (await client.get("/a")).status_code == 200


async def test_both_ends_must_allow(tmp_path: Path) -> None:
    async with rig(tmp_path) as made, made.client() as client:
        made.ipcache.put("127.0.0.1", CLIENT_IDENTITY, 8)
        ingress = endpoint_policy(get("/(both|in)"))
        egress = endpoint_policy(
            get("/(both|out)"), endpoint_id=8, peers=(SERVER_IDENTITY,), direction="egress"
        )
        await made.agent.push(ingress, egress, full=True)
        answers = {path: await client.get(path) for path in ("/both", "/in", "/out")}
        assert {path: answer.status_code for path, answer in answers.items()} == {
            "/both": 200,
            "/in": 403,
            "/out": 403,
        }
        assert "(egress)" in answers["/in"].text
        assert "(ingress)" in answers["/out"].text
        record = await made.agent.record(direction=pb.DIRECTION_EGRESS, verdict=pb.VERDICT_DENIED)
        assert record.endpoint_id == 8


async def test_audit_passes_and_says_so(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.agent.push(endpoint_policy(get("/a"), audit=True), full=True)
        assert await probe(made, "/b") == 200
        record = await made.agent.record(verdict=pb.VERDICT_AUDIT)
        assert (record.reason, record.http.status) == (pb.REASON_NO_RULE, 200)


async def test_without_a_policy_all_is_denied(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        assert await probe(made, "/a") == 403
        await made.agent.record(reason=pb.REASON_NO_POLICY, endpoint_id=SERVER_ID)
        await made.agent.push(endpoint_policy(get("/a")), full=True)
        assert await probe(made, "/a") == 200
        await made.agent.push(endpoint_policy(get("/a"), endpoint_id=9), full=True)
        assert await probe(made, "/a") == 403


async def test_an_unknown_endpoint_is_denied(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        made.ipcache.put("127.0.0.3", SERVER_IDENTITY)
        assert await probe(made, "/a") == 403
        await made.agent.record(reason=pb.REASON_UNKNOWN_ENDPOINT)


async def test_a_bad_rule_is_refused_and_closes_its_endpoint(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.agent.push(endpoint_policy(get("/a")), full=True)
        assert await probe(made, "/a") == 200
        ack = await made.agent.push(endpoint_policy(get("/a("), revision=2))
        (error,) = ack.errors
        assert (error.endpoint_id, error.revision) == (SERVER_ID, 2)
        assert error.rule == "cnp/test/rule"
        assert error.message.startswith('path "/a("')
        assert await probe(made, "/a") == 403


async def test_policies_outlive_the_agent(tmp_path: Path) -> None:
    async with rig(tmp_path) as made, made.client() as client:
        await made.agent.push(endpoint_policy(get("/a")), full=True)
        await made.agent.stop()
        made.agent.socket_path.unlink(missing_ok=True)
        for _ in range(3):
            assert (await client.get("/a")).status_code == 200
            assert (await client.get("/b")).status_code == 403
            await asyncio.sleep(0.2)
        made.agent = await Agent(made.agent.socket_path).start()
        await asyncio.wait_for(made.agent.hello, 3)
        await made.agent.push(endpoint_policy(get("/b"), revision=1), full=True)
        assert (await client.get("/a")).status_code == 403
        assert (await client.get("/b")).status_code == 200
        await made.agent.record(verdict=pb.VERDICT_DENIED)
        await made.agent.stop()


async def test_bytes_that_are_not_http_are_denied(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.agent.push(endpoint_policy(get("/a")), full=True)

        def say(first_bytes: bytes) -> bytes:
            with connection(made.port) as client:
                client.sendall(first_bytes)
                with contextlib.suppress(ConnectionResetError):  # closed with the bytes unread
                    return client.recv(100)
                return b""

        for first_bytes in (b"\x16\x03\x01\x02\x00\x01", b"\0\0\0\x10\0\x12", b"PING\r\n"):
            made.agent.records.clear()
            assert await asyncio.to_thread(say, first_bytes) == b"", first_bytes
            record = await made.agent.record(reason=pb.REASON_NOT_PROTOCOL)
            assert (record.verdict, record.endpoint_id) == (pb.VERDICT_DENIED, SERVER_ID)
        answer = await asyncio.to_thread(say, b"\r\nGET /a HTTP/1.1\r\nhost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("upstream_filter", [False, True], ids=["downstream", "upstream"])
async def test_a_websocket_ends_with_the_policy_that_allowed_it(
    tmp_path: Path, upstream_filter: bool
) -> None:
    async with rig(tmp_path, upstream_filter=upstream_filter) as made:
        await made.agent.push(endpoint_policy(get("/ws")), full=True)
        reader, writer = await asyncio.open_connection("127.0.0.3", made.port)
        writer.write(b"GET /ws HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n")
        writer.write(b"upgrade: websocket\r\n\r\n")
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert b" 101 " in head
        writer.write(b"ping")
        assert await asyncio.wait_for(reader.readexactly(4), 5) == b"ping"
        await made.agent.push(endpoint_policy(get("/(ws|a)"), revision=2))
        writer.write(b"more")
        assert await asyncio.wait_for(reader.readexactly(4), 5) == b"more"
        await made.agent.push(endpoint_policy(get("/a"), revision=3))
        writer.write(b"late")
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        await made.agent.record(verdict=pb.VERDICT_DENIED, revision=3)
        assert await probe(made, "/a") == 200, "Envoy is alive"


async def test_equal_verdicts_are_merged_denials_never(tmp_path: Path) -> None:
    async with rig(tmp_path) as made, made.client() as client:
        await made.agent.push(endpoint_policy(get("/a")), full=True)
        for path in ("/a", "/b"):
            for _ in range(40):
                await client.get(path)

        def counts(verdict: pb.Verdict.ValueType) -> list[int]:
            return [record.count for record in made.agent.records if record.verdict == verdict]

        for _ in range(200):
            if sum(counts(pb.VERDICT_ALLOWED)) >= 40 and len(counts(pb.VERDICT_DENIED)) >= 40:
                break
            await asyncio.sleep(0.05)
        assert counts(pb.VERDICT_DENIED) == [1] * 40
        first, *later = counts(pb.VERDICT_ALLOWED)
        assert (first, sum(later)) == (1, 39)
        assert len(later) < 20


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"node": "x"}, "missing field `agent_socket`"),
        (
            {"node": "x", "agent_socket": "/s", "ipcache": "/none", "ipcache_epoch": "/none"},
            "/none: No such file or directory",
        ),
    ],
)
async def test_a_wrong_bootstrap_is_refused(
    tmp_path: Path, config: dict[str, str], message: str
) -> None:
    with pytest.raises(AssertionError, match="Envoy exited") as refused:
        async with rig(tmp_path, bootstrap_config=config):
            pass
    assert message in str(refused.value)


async def test_envoy_exits_in_order(tmp_path: Path) -> None:
    async with rig(tmp_path) as made:
        await made.agent.push(endpoint_policy(get("/a")), full=True)
        assert await probe(made, "/b") == 403
        assert await asyncio.to_thread(made.stop) == 0
