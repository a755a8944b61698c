"""The Python side of the datapath's numbers and layouts against the C side."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

import pytest

from datapath import consts
from datapath.codec import Endpoint, address_bytes, address_of, ipcache_key, policy_key, prefix_of
from policy_engine.model import Action, Direction, PolicyKey, Protocol

HEADER = (Path(consts.__file__).parent / "bpf" / "consts.h").read_text()


def in_c(name: str) -> int:
    found = re.search(rf"(?:#define {name} |\b{name} = )(0x[0-9a-f]+|\d+)", HEADER)
    assert found, f"{name} is not in consts.h"
    return int(found[1], 0)


@pytest.mark.parametrize("reason", list(consts.DropReason))
def test_drop_reasons(reason: consts.DropReason) -> None:
    assert in_c(f"DROP_{reason.name}") == reason


@pytest.mark.parametrize("action", list(Action))
def test_actions(action: Action) -> None:
    assert in_c(f"ACTION_{action.name}") == action


@pytest.mark.parametrize("verdict", list(consts.Verdict))
def test_verdicts(verdict: consts.Verdict) -> None:
    assert in_c(f"VERDICT_{verdict.name}") == verdict


@pytest.mark.parametrize("flag", list(consts.EndpointFlag))
def test_flags(flag: consts.EndpointFlag) -> None:
    assert in_c(str(flag.name)) == flag


@pytest.mark.parametrize(
    "name",
    ["MARK_MASK", "MARK_TO_PROXY", "MARK_FROM_PROXY", "MARK_UPSTREAM", "COUNTER_SLOTS",
     "IDENTITY_HOST", "IDENTITY_WORLD"],
)  # fmt: skip
def test_numbers(name: str) -> None:
    assert in_c(name) == getattr(consts, name)


def test_no_drop_reason_is_missing() -> None:
    assert in_c("DROP_REASONS") == len(consts.DropReason)


@pytest.mark.parametrize(
    "text", ["10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/32", "fd00::1/128"]
)
def test_prefixes_come_back(text: str) -> None:
    prefix = ip_network(text)
    key = ipcache_key(prefix)
    assert len(key) == 20
    assert prefix_of(key) == prefix


@pytest.mark.parametrize("text", ["10.1.2.3", "2001:db8::1"])
def test_addresses_come_back(text: str) -> None:
    assert address_of(address_bytes(ip_address(text))) == ip_address(text)


def test_endpoints_come_back() -> None:
    endpoint = Endpoint(7, 300, 9, IPv4Address("10.0.0.1"), IPv6Address("fd00::1"))
    assert Endpoint.unpack(9, endpoint.pack()) == endpoint
    assert len(endpoint.pack()) == 32


def test_policy_key() -> None:
    key = PolicyKey(Direction.EGRESS, 300, Protocol.TCP, 8080, 16)
    assert policy_key(5, key) == bytes.fromhex("050001062c0100001f901000")
