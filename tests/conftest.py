"""Fixtures that every test may use."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real imagery and weights beside the project; skips where it is not there."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real data is not beside the project (../shared/data)")
    return SHARED_DATA
