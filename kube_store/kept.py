"""A dictionary in a file, for the little that must outlive a process."""

from __future__ import annotations

import json
from collections import UserDict
from pathlib import Path
from typing import Any

from kube_store.files import replace_file


class Kept(UserDict[str, Any]):
    """JSON values by name. What is set or deleted is in the file when the call returns.

    A file that cannot be read counts as empty. Setting and deleting raise OSError.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        try:
            found = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            found = {}
        self.data = found if isinstance(found, dict) else {}

    def __setitem__(self, key: str, value: Any) -> None:
        if self.data.get(key) != value:
            self.data[key] = value
            self._write()

    def __delitem__(self, key: str) -> None:
        del self.data[key]
        self._write()

    def _write(self) -> None:
        replace_file(self._path, json.dumps(self.data).encode())
