"""A library that somebody has mapped never changes under him."""

from __future__ import annotations

import mmap
from pathlib import Path

from node_agent import module_library


def test_an_upgrade_leaves_the_library_that_is_mapped(tmp_path: Path) -> None:
    build, volume = tmp_path / "libsidegate.so", tmp_path / "volume"
    build.write_bytes(b"one")
    module_library.place(volume, build)
    link = volume / module_library.LINK
    first = link.resolve()
    with first.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        build.write_bytes(b"two")
        module_library.place(volume, build)
        assert mapped[:] == b"one"
        assert (first.read_bytes(), link.read_bytes()) == (b"one", b"two")


def test_the_same_build_again_is_the_same_file(tmp_path: Path) -> None:
    build, volume = tmp_path / "libsidegate.so", tmp_path / "volume"
    build.write_bytes(b"one")
    module_library.place(volume, build)
    before = (volume / module_library.LINK).stat()
    module_library.place(volume, build)
    assert (volume / module_library.LINK).stat().st_ino == before.st_ino
    assert len(list(volume.iterdir())) == 2


def test_what_is_not_what_its_name_says_is_replaced(tmp_path: Path) -> None:
    build, volume = tmp_path / "libsidegate.so", tmp_path / "volume"
    build.write_bytes(b"one")
    module_library.place(volume, build)
    named = (volume / module_library.LINK).resolve()
    named.write_bytes(b"torn")
    module_library.place(volume, build)
    assert named.read_bytes() == b"one"
