"""What trace makes of the kernel's events, without a kernel."""

from __future__ import annotations

import pytest

from tracing import main
from tracing.btf import VMLINUX, Btf
from tracing.main import Missing, named, text
from tracing.probe import drop_reasons

PODS = {"10.0.0.1": "default/a", "fd00::2": "default/b"}
ENDS = {"source": "10.0.0.1", "destination": "fd00::2", "sport": 1, "dport": 80, "protocol": "TCP"}


@pytest.mark.parametrize(
    ("event", "said"),
    [
        ({"kind": "drop", "reason": "NO_SOCKET"}, "dropped    NO_SOCKET"),
        ({"kind": "retransmit", "state": "SYN_SENT"}, "retransmit SYN_SENT"),
        ({"kind": "state", "old": "SYN_SENT", "state": "CLOSE"}, "state      SYN_SENT -> CLOSE"),
    ],
)
def test_an_event_is_told_with_its_pods(event: dict[str, str], said: str) -> None:
    assert text(named(ENDS | event, PODS)) == f"{said:<36} TCP default/a:1 -> default/b:80"
    bare = text(named(ENDS | event | {"sport": 0}, {}))
    assert bare.endswith("TCP 10.0.0.1 -> [fd00::2]:80")


def test_reasons_are_the_kernels_own() -> None:
    fmt = (
        'print fmt: "%s", __print_symbolic(REC->reason, { 2, "NOT_SPECIFIED" }, { 3, "NO_SOCKET" })'
    )
    assert drop_reasons(fmt) == {2: "NOT_SPECIFIED", 3: "NO_SOCKET"}


def test_what_is_missing_is_said_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Missing, match="needs root"):
        main.check()


@pytest.mark.skipif(not VMLINUX.exists(), reason="the kernel has no BTF")
def test_offsets_are_the_running_kernels() -> None:
    btf = Btf()
    assert btf.offset("iphdr", "saddr") == 12
    assert btf.offset("ipv6hdr", "daddr") == 24
    assert btf.offset("tcphdr", "dest") == 2
    assert btf.offset("sk_buff", "head") > btf.offset("sk_buff", "network_header")
    with pytest.raises(KeyError, match="no member nothing"):
        btf.offset("sk_buff", "nothing")
