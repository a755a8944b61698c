"""What RE2 takes and refuses, by its own documentation of its syntax."""

from __future__ import annotations

import pytest

from gateway_translator.regexes import regex_error

TAKEN = (
    "/v[0-9]+/.*",
    r"\pL+",
    r"\p{Greek}",
    r"/a\z",
    r"\Qa+b(\E",
    "(?i)abc",
    "a(?i)b",
    "(?i:abc)d",
    "[[:alpha:]]+",
    "(?<name>a)",
    "(?P<name>a)",
    "a{1,1000}",
    r"a\\+",
    r"\(\?=",
)
REFUSED = (
    "(?=a)",
    "(?!a)",
    "(?<=a)b",
    "(?<!a)b",
    r"(a)\1",
    "(?P<n>a)(?P=n)",
    "(?>a)",
    "a*+",
    "a{1001}",
    "a{1,2000}",
    "(",
    "[a",
    "*a",
    r"a\Z",
)


@pytest.mark.parametrize("expression", TAKEN)
def test_taken(expression: str) -> None:
    assert regex_error(expression) is None


@pytest.mark.parametrize("expression", REFUSED)
def test_refused(expression: str) -> None:
    assert regex_error(expression)
