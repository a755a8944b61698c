"""When a lease is held, as the kernel has it (holds_lease in datapath/bpf/sidecar.h)."""

from __future__ import annotations

import os
import re
import struct
import time
from pathlib import Path

import pytest

import datapath
from node_agent import lease


@pytest.mark.parametrize(
    ("ago", "holds"), [(0.0, True), (0.5, True), (1.1, False), (3600, False), (-3600, False)]
)
def test_a_lease_is_held_for_a_second(ago: float, holds: bool) -> None:
    page = os.memfd_create("lease")
    os.pwrite(page, struct.pack("<QII", time.monotonic_ns() - int(ago * 1e9), 1, 3), 0)
    os.truncate(page, 4096)
    assert lease.held(page) is holds
    os.close(page)


def test_one_that_was_never_written_is_not_held() -> None:
    page = os.memfd_create("lease")
    os.truncate(page, 4096)
    assert not lease.held(page)
    os.close(page)


def test_it_is_the_kernels_second() -> None:
    header = (Path(datapath.__file__).parent / "bpf" / "consts.h").read_text()
    found = re.search(r"#define LEASE_NS (\d+)ULL", header)
    assert found
    assert int(found[1]) == lease._LEASE_NS
