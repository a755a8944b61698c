"""Small JSON files that outlive the agent, replaced whole, never half-written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger(__name__)


def write_json(path: Path, value: Any) -> None:
    """Replace ``path`` atomically; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_text(json.dumps(value, indent=1, sort_keys=True))
    temporary.chmod(0o600)
    os.replace(temporary, path)


def read_json(path: Path) -> Any | None:
    """None where there is no file or no JSON in it; an unreadable file is set aside and logged.

    The caller starts from nothing then, which for endpoints and identities means deny until the
    CNI plugin and the policies say otherwise.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        aside = path.with_suffix(".corrupt")
        os.replace(path, aside)
        log.error("state file is not JSON, starting without it", file=str(aside), error=str(error))
        return None
