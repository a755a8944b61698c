"""Who is at the other end of a sidecar, by address, and what becomes of open connections when that
changes. Without mTLS, as under PERMISSIVE."""

from __future__ import annotations

from pathlib import Path

import pytest

from sidegate_api.policy.v1 import policy_pb2 as pb
from tests.system.sidecar_rig import OTHER, OWNER, echoes, sidecar

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

REQUIRED = pb.AUTHENTICATION_REQUIRED


async def test_an_address_takes_no_identity_with_it_to_its_next_owner(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as made:
        await made.agent.push(pb.PortRule(peers=[OWNER], rule="r"))
        stream = await made.connect()
        assert await made.get() == 200, "by its address alone, for it shows no certificate"
        assert await echoes(stream)
        await made.agent.readdress(OTHER)
        assert await made.get() == 403, "on the connection that was open"
        assert not await echoes(stream)
        await made.agent.denied(pb.REASON_NO_RULE)
        await made.agent.readdress(OWNER)
        assert await made.get() == 200


async def test_what_takes_a_certificate_is_closed_to_who_shows_none(tmp_path: Path) -> None:
    async with sidecar(tmp_path) as made:
        await made.agent.push(pb.PortRule(peers=[OWNER], rule="r"))
        stream = await made.connect()
        assert await made.get() == 200
        assert await echoes(stream)
        await made.agent.push(pb.PortRule(peers=[OWNER], rule="r", authentication=REQUIRED))
        assert await made.get() == 403
        assert not await echoes(stream)
        await made.agent.denied(pb.REASON_UNAUTHENTICATED)
        assert not await echoes(await made.connect())


async def test_a_client_of_kafka_is_judged_anew_on_its_open_connection(tmp_path: Path) -> None:
    """Nothing is denied to be answered with: it has no right to the connection any more."""
    kafka = pb.KafkaRules(rules=[pb.KafkaRule(topic="orders")])
    async with sidecar(tmp_path) as made:
        await made.agent.push(pb.PortRule(peers=[OWNER], rule="r", kafka=kafka))
        stream = await made.connect()
        await made.agent.push(
            pb.PortRule(peers=[OWNER], rule="r", kafka=kafka, authentication=REQUIRED)
        )
        assert not await echoes(stream)
        await made.agent.denied(pb.REASON_UNAUTHENTICATED)
        assert {each.reason for each in made.agent.records} == {pb.REASON_UNAUTHENTICATED}
