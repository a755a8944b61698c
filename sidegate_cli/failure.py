"""How a command ends when it cannot do what was asked."""

from __future__ import annotations


class Failure(Exception):
    """``code`` is the exit code: 1 refused or found wrong, 3 no agent, or a part is missing."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code
