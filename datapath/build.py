"""Compiles the BPF programs ahead of time: ``python -m datapath.build``."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

_BPF = Path(__file__).parent / "bpf"
OBJECT = _BPF / "sidegate.bpf.o"
SOCK_OBJECT = _BPF / "sock.bpf.o"
SERVICES_PACKET_OBJECT = _BPF / "services_packet.bpf.o"


def build(target: Path) -> None:
    """Compile with BTF; only UAPI headers and libbpf's are needed. Raises CalledProcessError."""
    subprocess.run(
        [
            "clang",
            "-target",
            "bpf",
            "-mcpu=v3",
            "-O2",
            "-g",
            "-Wall",
            "-Werror",
            f"-I/usr/include/{platform.machine()}-linux-gnu",
            "-c",
            str(target.with_suffix(".c")),
            "-o",
            str(target),
        ],
        check=True,
    )


if __name__ == "__main__":
    try:
        for each in (OBJECT, SOCK_OBJECT, SERVICES_PACKET_OBJECT):
            build(each)
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
