"""Files replaced whole: a reader sees the old one or the new one."""

from __future__ import annotations

from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Written beside the target and renamed over it (rename(2) is atomic).

    Not synced: it has to outlive the process, not the boot, as all under /run; and a change of
    policy would wait for a busy disk.
    """
    draft = path.with_name(path.name + ".new")
    draft.write_bytes(content)
    draft.replace(path)
