"""The Python side of the service maps' numbers and layouts against the C side."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path

import pytest

from datapath import build, libbpf
from datapath.service_codec import (
    MemberState,
    ServiceCounter,
    ServiceValue,
    backend_of,
    flow_key,
    frontend_of,
    l4_addr,
    member_fields,
    member_key,
    slot_fields,
    slot_key,
)
from datapath.service_model import Backend, Frontend
from policy_engine.model import Protocol

HEADER = (build.SOCK_OBJECT.parent / "services.h").read_text()
UAPI = Path("/usr/include/linux/bpf.h").read_text()
V4 = Frontend(ip_address("10.96.0.10"), 80, Protocol.TCP)
V6 = Frontend(ip_address("fd00:96::a"), 53, Protocol.UDP)


def in_c(name: str) -> int:
    found = re.search(rf"(?:#define {name} |\b{name} = )(\d+)", HEADER)
    assert found, f"{name} is not in services.h"
    return int(found[1])


def test_numbers() -> None:
    for state in MemberState:
        assert in_c(f"MEMBER_{state.name}") == state
    for counter in ServiceCounter:
        assert in_c(f"SERVICE_{counter.name}") == counter
    assert in_c("SERVICE_COUNTERS") == len(ServiceCounter)


def test_attach_types() -> None:
    listed = UAPI[UAPI.index("enum bpf_attach_type {") :]
    names = re.findall(r"^\t(BPF_\w+)", listed[: listed.index("}")], re.MULTILINE)
    prefixes = {"connect": "INET", "getpeername": "INET", "sendmsg": "UDP", "recvmsg": "UDP"}
    for hook, number in libbpf.CGROUP_HOOKS.items():
        name, family = hook[:-1], hook[-1]
        expected = f"BPF_CGROUP_{prefixes[name]}{family}_{name.upper()}"
        assert names.index(expected) == number, hook


@pytest.mark.parametrize("frontend", [V4, V6])
def test_addresses(frontend: Frontend) -> None:
    raw = l4_addr(*frontend)
    assert len(raw) == 24
    assert raw[16:19] == frontend.port.to_bytes(2, "big") + bytes([frontend.protocol])
    assert frontend_of(raw) == frontend
    assert backend_of(raw) == Backend(frontend.address, frontend.port)
    assert flow_key(1 << 40, raw) == (1 << 40).to_bytes(8, "little") + raw
    assert member_key(7, raw)[:8] == (7).to_bytes(8, "little")
    assert member_fields(member_key(7, raw)) == (7, backend_of(raw))


def test_v4_is_mapped() -> None:
    assert l4_addr(*V4)[:16] == bytes(10) + b"\xff\xff" + bytes([10, 96, 0, 10])


def test_values() -> None:
    value = ServiceValue(7, 2, 3, 10800)
    assert value.pack() == b"".join(n.to_bytes(4, "little") for n in (7, 2, 3, 10800))
    assert ServiceValue.unpack(value.pack()) == value
    assert slot_fields(slot_key(7, 2, 1)) == (7, 2, 1)
