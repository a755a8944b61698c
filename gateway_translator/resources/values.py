"""Values that the CRDs bound. No API server has read a file: they are checked here too."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
Hostname = Annotated[str, Meta(pattern=rf"^((\*\.)?{_LABEL}(\.{_LABEL})*)?$", max_length=253)]
"""Empty: every one. Source: Hostname of Gateway API, host of an IngressRule."""

HeaderName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9!#$%&'*+\-.^_`|~]+$", max_length=256)]
"""Source: RFC 9110, 5.1."""

HeaderValue = Annotated[str, Meta(pattern=r"^[^\x00\r\n]*$", max_length=4096)]
PathValue = Annotated[str, Meta(max_length=1024)]
"""A regular expression too: what RE2 makes of one grows with its length."""

Port = Annotated[int, Meta(ge=1, le=65535)]
Weight = Annotated[int, Meta(ge=0, le=1_000_000)]
