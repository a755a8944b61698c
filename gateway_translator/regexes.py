"""Regular expressions that the proxy would refuse, found before they are sent."""

from __future__ import annotations

import re
from collections.abc import Callable

RegexError = Callable[[str], str | None]
"""What is wrong with an expression, None if nothing is."""

_NOT_RE2 = re.compile(r"\(\?(?:[=!>]|<[=!]|P=|\()|\\[1-9]|(?<!\\)[*+?}]\+")


def regex_error(expression: str) -> str | None:
    """RE2's syntax without RE2 at hand: Python's, less what RE2 leaves out."""
    if found := _NOT_RE2.search(expression):
        return f"{found.group()} (look-around, back reference or possessive) is not in RE2"
    try:
        re.compile(expression)
    except re.error as error:
        return str(error)
    return None
