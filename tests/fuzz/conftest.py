"""How long each fuzz target is tried."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def fuzz_seconds(request: pytest.FixtureRequest) -> float:
    """A target's share of FUZZ_SECONDS, which `make fuzz` sets; 0 without it: a fixed number of files."""
    total = float(os.environ.get("FUZZ_SECONDS", "0"))
    targets = sum("fuzz_seconds" in getattr(item, "fixturenames", ()) for item in request.session.items)
    return total / targets
