"""Compiles the BPF programs ahead of time: ``python -m datapath.build``."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parent / "bpf" / "sidegate.bpf.c"
OBJECT = SOURCE.with_suffix(".o")


def build() -> Path:
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
            str(SOURCE),
            "-o",
            str(OBJECT),
        ],
        check=True,
    )
    return OBJECT


if __name__ == "__main__":
    try:
        build()
    except subprocess.CalledProcessError as error:
        sys.exit(error.returncode)
