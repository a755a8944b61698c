"""Why Envoy refuses a resource, out of all that it says then.

It dumps the message that it refuses, before the reason. That has the routes of others of the same
host, and values of headers which may be credentials: neither is for a status or a log. What is
longer than 4 KiB it cuts, in the dump mostly, so that no reason is left.
"""

from __future__ import annotations

import re

_HEAD, _TAIL = 200, 300  # characters: what it is about comes first, what is wrong with it last
# The text format escapes line breaks inside of values, so the reason begins the only line that ": "
# begins.
_DUMP = re.compile(r"goo\.gle/debug\w+\s(?:.*\n: |.*)", re.DOTALL)
_CAUSE = " | caused by "
_UNSAID = "a value of it, or a number of them, is over the proxy's limits"


def reason(message: str) -> str:
    """On one line, of some hundred characters."""
    said = _DUMP.sub("", message)
    _, chained, innermost = said.rpartition(_CAUSE)
    if chained:
        said = innermost.rstrip(")")
    said = " ".join(said.split()) or _UNSAID
    return said if len(said) <= _HEAD + _TAIL else f"{said[:_HEAD]} ... {said[-_TAIL:]}"
