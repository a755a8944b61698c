"""The library against the Envoy binary: every symbol that one needs, the other has."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.system.module_rig import ENVOY, LIBRARY

pytestmark = pytest.mark.system

ARM64 = LIBRARY.parent / "arm64" / LIBRARY.name
KINDS = r"envoy_dynamic_module_on_(?:http_filter|network_filter|listener_filter|bootstrap)"


def symbols(library: Path, *options: str) -> set[str]:
    listing = subprocess.run(
        ["nm", "-D", *options, library], check=True, capture_output=True, text=True
    ).stdout
    return set(re.findall(r"\benvoy_dynamic_module_\w+", listing))


def known_hooks() -> set[str]:
    """The hooks that Envoy knows of: it has stubs of them under a module of its own."""
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", ENVOY], check=True, capture_output=True, text=True
    ).stdout
    return set(re.findall(rf"_static_({KINDS}\w+)", listing))


def test_envoy_has_every_callback_that_the_abi_crate_declares() -> None:
    source = LIBRARY.parents[1] / "crates" / "abi" / "src" / "ffi.rs"
    declared = set(re.findall(r"fn (envoy_dynamic_module_callback_\w+)", source.read_text()))
    assert len(declared) > 15
    assert symbols(LIBRARY, "--undefined-only") <= declared
    assert declared <= symbols(ENVOY, "--defined-only")


def test_the_library_has_every_hook_of_its_kinds() -> None:
    wanted = known_hooks()
    assert len(wanted) > 50
    assert wanted <= symbols(LIBRARY, "--defined-only")


def test_the_library_needs_no_more_than_libc() -> None:
    listing = subprocess.run(
        ["readelf", "-d", LIBRARY], check=True, capture_output=True, text=True
    ).stdout
    needed = set(re.findall(r"\(NEEDED\).*\[(.+?)\]", listing))
    glibc = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "ld-linux-x86-64.so.2"}
    assert needed <= glibc | {"libgcc_s.so.1"}


@pytest.mark.parametrize(
    ("library", "machine"),
    [
        (LIBRARY, "X86-64"),
        pytest.param(
            ARM64,
            "AArch64",
            marks=pytest.mark.skipif(not ARM64.exists(), reason="make build/module-arm64"),
        ),
    ],
)
def test_the_library_asks_for_no_glibc_newer_than_debian_11s(library: Path, machine: str) -> None:
    """Proxy images are older than what it is built on."""
    listed = subprocess.run(
        ["readelf", "-hVW", library], check=True, capture_output=True, text=True
    ).stdout
    assert re.search(rf"Machine:.*{machine}", listed)
    versions = {
        tuple(map(int, found.split("."))) for found in re.findall(r"GLIBC_([0-9.]+)", listed)
    }
    assert max(versions) <= (2, 31), sorted(versions)
