"""An interrupted and resumed suite gives the same results."""

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
import torch
import yaml

import geotune
from geotune.api.fitting import fit
from geotune.api.testing import test as judge_run
from geotune.bench.analysis import COSTS
from geotune.bench.grid import expand
from geotune.bench.local_executor import JobResult
from geotune.bench.results import row_of
from geotune.bench.suite import read_suite
from geotune.training.run_dir import RunDir

MEASURED = {*COSTS, "frugal", "fast"}
"""Columns that depend on time or the machine."""

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

SOURCES = str(Path(geotune.__file__).resolve().parents[1])


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "table.csv").open(newline="", encoding="utf-8") as file:
        return [{k: v for k, v in row.items() if k not in MEASURED} for row in csv.DictReader(file)]


def start(suite: Path, workers: int = 2) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "geotune", "bench", str(suite), "--workers", str(workers)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": SOURCES},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # a shell that starts the tests in the background has SIGINT ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def children(parent: int) -> list[int]:
    result = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            result.append(int(status.parent.name))
    return result


def end(running: subprocess.Popen[bytes], how: signal.Signals) -> str:
    """Send a signal to a suite and return its stderr; its runs must end too."""
    own = children(running.pid)
    running.send_signal(how)
    _, message = running.communicate()
    ended = time.monotonic() + 60
    while any(Path(f"/proc/{child}").exists() for child in own):
        assert time.monotonic() < ended, "a run outlived its suite"
        time.sleep(0.05)
    return message.decode()


def wait_for_epoch(running: subprocess.Popen[bytes], folder: Path, runs: int = 1) -> None:
    """Wait until one more epoch is finished and `runs` runs have one."""

    def epochs() -> list[int]:
        return [path.read_text().count("\n") - 1 for path in folder.rglob("history.csv")]

    before = sum(epochs())
    while sum(epochs()) <= before or len(epochs()) < runs:
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)


def uninterrupted(suite: Path, folder: Path) -> list[dict[str, Any]]:
    """The rows of a suite run sequentially in this process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in `start`: the last digits depend on it
    rows = []
    for spec in expand(read_suite(suite))[0]:
        run = folder / spec.name
        fit(spec.recipe, run=run)
        judge_run(run)
        rows.append(row_of(spec, run, JobResult(), None))
    torch.set_num_threads(threads)
    return rows


def rows_in(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]


@pytest.mark.slow
@linux
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["killed", "stopped"])
def test_interrupted_suite_resumes_to_the_same_rows(
    suite: Callable[..., Path], tmp_path: Path, how: signal.Signals
) -> None:
    path = suite({"train.epochs": 4}, baselines=None)
    expected = uninterrupted(path, tmp_path / "uninterrupted")
    running = start(path, workers=1)
    wait_for_epoch(running, tmp_path / "bench")
    message = end(running, how)
    if how == signal.SIGINT:
        assert running.returncode == 130 and "Run the same command again" in " ".join(
            message.split()
        )
    assert not (tmp_path / "bench" / "rows.jsonl").exists()
    last = start(path, workers=1)
    _, errors = last.communicate()
    assert last.returncode == 0, errors.decode()
    result = rows_in(tmp_path / "bench")
    for row in (*expected, *result):
        del row["cost"]
    assert result == json.loads(json.dumps(expected))


@pytest.mark.slow
@linux
def test_interrupt_stops_parallel_runs(suite: Callable[..., Path], tmp_path: Path) -> None:
    path = suite({"train.epochs": 500}, grid={"method.kind": ["est", "frozen"]}, baselines=None)
    running = start(path)
    wait_for_epoch(running, tmp_path / "bench", runs=2)
    assert len(children(running.pid)) == 2
    message = end(running, signal.SIGINT)
    assert running.returncode == 130 and "Run the same command again" in " ".join(message.split())
    for run in (tmp_path / "bench" / "runs" / "tiny").iterdir():
        assert RunDir(run).has_checkpoint and not (run / "run.json").exists()


@pytest.mark.slow
@linux
@pytest.mark.skipif("GEOTUNE_LONG_TESTS" not in os.environ, reason="minutes: GEOTUNE_LONG_TESTS=1")
def test_suite_killed_repeatedly_gives_the_same_table(
    suite: Callable[..., Path], tmp_path: Path
) -> None:
    path = suite(
        {"train.epochs": 3},
        grid={"method.kind": ["est"]},
        baselines={"unet_from_scratch": False},
        search={"low": 1e-3, "high": 1e-2, "trials": 2, "epochs": 1},
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
    for _ in range(10):
        running = start(path)
        try:
            running.wait(moments.uniform(0.1, 0.5) * seconds)
        except subprocess.TimeoutExpired:
            end(running, signal.SIGKILL)
    last = start(path)
    _, message = last.communicate()
    assert last.returncode == 0, message.decode()
    assert table(tmp_path / "bench") == expected
    assert len(rows_in(tmp_path / "bench")) == 2
