"""A suite killed at any moment, and started again, comes to the same table."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import geotune
from geotune.bench.comparison import COSTS

MEASURED = {*COSTS, "frugal", "fast"}
"""Columns that a clock or the machine decides."""

SOURCES = str(Path(geotune.__file__).resolve().parents[1])


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k not in MEASURED} for row in csv.DictReader(file)]


def start(suite: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "geotune", "bench", str(suite), "--workers", "2"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": SOURCES},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def children(parent: int) -> list[int]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(status.parent.name))
    return found


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("kills", [2, pytest.param(10, id="ten kills")])
def test_killed_at_random_moments_it_comes_to_the_same_table(
    suite: Callable[..., Path], tmp_path: Path, kills: int
) -> None:
    keys: dict[str, Any] = {}
    if kills > 2:
        if not os.environ.get("GEOTUNE_LONG_TESTS"):
            pytest.skip("takes minutes; set GEOTUNE_LONG_TESTS=1")
        keys["search"] = {"low": 1e-3, "high": 1e-2, "trials": 2, "epochs": 1}
    path = suite(
        {"train.epochs": 3},
        grid={"method.kind": ["est"]},
        baselines={"unet_from_scratch": False},
        **keys,
    )
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    whole = tmp_path / "whole.yaml"
    whole.write_text(yaml.safe_dump({**values, "folder": str(tmp_path / "whole")}))
    begun = time.monotonic()
    assert start(whole).wait() == 0
    seconds = time.monotonic() - begun
    expected = table(tmp_path / "whole")
    assert len(expected) == 2 and all(row["failed"] == "0" for row in expected)

    moments = random.Random(0)
    for _ in range(kills):
        running = start(path)
        try:
            running.wait(moments.uniform(0.1, 0.5) * seconds)
        except subprocess.TimeoutExpired:
            own = children(running.pid)
            running.send_signal(signal.SIGKILL)
            running.wait()
            ended = time.monotonic() + 10
            while any(Path(f"/proc/{child}").exists() for child in own):
                assert time.monotonic() < ended, "a run outlives its suite"
                time.sleep(0.05)
    last = start(path)
    _, said = last.communicate()
    assert last.returncode == 0, said.decode()
    assert table(tmp_path / "bench") == expected
    rows = [
        json.loads(line) for line in (tmp_path / "bench" / "rows.jsonl").read_text().splitlines()
    ]
    assert len(rows) == 2
