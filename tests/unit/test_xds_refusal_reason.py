"""Envoy's words without what it dumps: neighbours' routes, and what headers are set to."""

from __future__ import annotations

import pytest

from xds_server.refusal_reason import reason

DUMP = """goo.gle/debugproto  \nname: "gateway/shop/web/80/*"
routes {
  request_headers_to_add {
    header {
      key: "authorization"
      value: "Basic c2VjcmV0: \\n: no line"
    }
  }
}
"""
CHAIN = (
    "Proto constraint validation failed (VirtualHostValidationError.Routes[1]: embedded message"
    " failed validation | caused by QueryParameterMatcherValidationError.Name: value length must be"
    " at most 1024 bytes)"
)


@pytest.mark.parametrize(
    ("said", "left"),
    [
        (
            f"{DUMP}: {CHAIN}",
            "QueryParameterMatcherValidationError.Name: value length must be at most 1024 bytes",
        ),
        (f"{DUMP[:80]}...(truncated)", "is over the proxy's limits"),
        (f"{DUMP[:80]}", "is over the proxy's limits"),
        ("no argument for repetition operator: +", "no argument for repetition operator: +"),
        ("a\n  b", "a b"),
        ("x" * 9000 + "why", f"{'x' * 200} ... {'x' * 297}why"),
        ("", "is over the proxy's limits"),
    ],
)
def test_what_is_left(said: str, left: str) -> None:
    found = reason(said)
    assert found.endswith(left)
    assert "c2VjcmV0" not in found
    assert "authorization" not in found
    assert "\n" not in found
