"""Memory of this process."""

import gc
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def peak_growth(run: Callable[[], object]) -> int:
    """By how many bytes the resident set grows at most while `run` runs; Linux only."""
    before = resident_bytes()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets the peak
    run()
    return _status("VmHWM") - before


def resident_bytes() -> int:
    """The resident set; Linux only."""
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    return _status("VmRSS")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
