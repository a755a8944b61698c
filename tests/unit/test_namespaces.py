"""Namespaces of what runs below a cgroup, while containers come and go."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from datapath import namespaces


def test_a_cgroup_that_goes_while_they_are_looked_for_is_no_error(tmp_path: Path) -> None:
    """Containers end at any time: what lists their cgroups must not end with one of them."""
    own = tmp_path / "pod" / "own"
    own.mkdir(parents=True)
    (own / "cgroup.procs").write_text(f"{os.getpid()}\n")
    ended = threading.Event()

    def churn() -> None:
        while not ended.is_set():
            for number in range(20):
                (tmp_path / f"pod-{number}" / "container").mkdir(parents=True)
            for number in range(20):
                (tmp_path / f"pod-{number}" / "container").rmdir()
                (tmp_path / f"pod-{number}").rmdir()

    others = threading.Thread(target=churn)
    others.start()
    try:
        for _ in range(300):
            assert namespaces.of_cgroup(tmp_path) == [Path(f"/proc/{os.getpid()}/ns/net")]
    finally:
        ended.set()
        others.join()
