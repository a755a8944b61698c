"""Regular expressions that the proxy would refuse, found before they are sent.

Source: RE2, "Syntax".
"""

from __future__ import annotations

import re
from collections.abc import Callable

RegexError = Callable[[str], str | None]
"""What is wrong with an expression, None if nothing is."""

_MOST_REPEATS = 1000
_ESCAPED = r"(?<!\\)(?:\\\\)*"
_NOT_RE2 = re.compile(
    _ESCAPED + r"(\(\?(?:[=!>(]|<[=!]|P=|#)|\\[1-9Z]|[*+?}]\+)"  # look-around and the like
)
_REPEATS = re.compile(_ESCAPED + r"\{([0-9]+)(?:,([0-9]*))?\}")
_RE2_ALONE = (
    (re.compile(r"\\Q.*?(?:\\E|$)", re.DOTALL), "x"),
    (re.compile(_ESCAPED + r"\\[pP](?:\{\^?\w+\}|\w)"), "x"),
    (re.compile(_ESCAPED + r"\\[zC]"), "x"),
    (re.compile(r"\[\[:\^?\w+:\]"), "[x"),
    (re.compile(r"\(\?[imsU]*-?[imsU]+\)"), ""),
    (re.compile(r"\(\?[imsU]*-?[imsU]*:"), "(?:"),
    (re.compile(r"\(\?<(\w+)>"), r"(?P<\1>"),
)


def regex_error(expression: str) -> str | None:
    """RE2 without RE2 at hand: Python's syntax, less what RE2 leaves out, and what it adds."""
    if found := _NOT_RE2.search(expression):
        return f"{found.group(1)} (look-around, back reference or possessive) is not in RE2"
    for repeat in _REPEATS.finditer(expression):
        if any(int(number) > _MOST_REPEATS for number in repeat.groups() if number):
            return f"more than {_MOST_REPEATS} repeats"
    for pattern, replacement in _RE2_ALONE:
        expression = pattern.sub(replacement, expression)
    try:
        re.compile(expression)
    except (re.error, OverflowError) as error:
        return str(error)
    return None
