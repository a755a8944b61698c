"""The library against the Envoy binary: every symbol that one needs, the other has."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.system.module_rig import ENVOY, LIBRARY

pytestmark = pytest.mark.system

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
    assert needed <= {"libc.so.6", "libgcc_s.so.1", "libm.so.6", "ld-linux-x86-64.so.2"}
