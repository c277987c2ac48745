"""Kills of workers and the driver change nothing; `benchmarks/map_kills.py` is the large test."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_map_with_kills_is_that_of_an_unbroken_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("pyarrow")
    monkeypatch.syspath_prepend(BENCHMARKS)
    script = importlib.import_module("map_kills")
    result = script.check_kills(tmp_path, tiles=16, workers=2, kills=2)
    assert script.is_intact(result), result
    assert sum(result["kills"].values()) == 2 and result["files"] > 2 * 16
