"""Settings of all tests."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("sidegate", deadline=None)  # the machine is noisy; pytest bounds the time
settings.load_profile("sidegate")
