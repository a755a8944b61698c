"""A pod's lease as the kernel sees it: held for a second after its proxy has written it last."""

from __future__ import annotations

import mmap
import time

_LEASE_NS = 1_000_000_000  # LEASE_NS of datapath/bpf/consts.h


def held(page_fd: int) -> bool:
    """``page_fd`` is the lease's page (``struct lease``: the time comes first). Raises OSError."""
    with mmap.mmap(page_fd, mmap.PAGESIZE, prot=mmap.PROT_READ) as page:
        written = int.from_bytes(page[:8], "little")
    return 0 <= time.monotonic_ns() - written < _LEASE_NS
