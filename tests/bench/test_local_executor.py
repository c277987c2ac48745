"""Runs in subprocesses."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import geotune
from geotune.bench.local_executor import Job, LocalExecutor, StoppedError


def test_failed_job_reports_the_error_of_the_command(tmp_path: Path) -> None:
    result = LocalExecutor().run(Job("none.yaml", (), "run", working_dir=str(tmp_path)))
    assert result.error is not None and result.error.startswith("none.yaml: ")
    assert result.joules is None


def test_stopped_executor_refuses_jobs(tmp_path: Path) -> None:
    worker = LocalExecutor()
    worker.stop()
    with pytest.raises(StoppedError):
        worker.run(Job("none.yaml", (), "run", working_dir=str(tmp_path)))


def test_subprocess_ends_with_its_parent() -> None:
    """`geotune.bench.subprocess_entry` exits when its stdin is closed."""
    child = subprocess.Popen(
        [sys.executable, "-m", "geotune.bench.subprocess_entry", '["list", "methods"]', '["demo"]'],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(geotune.__file__).resolve().parents[1])},
        stdout=subprocess.PIPE,
    )
    assert child.wait(60) == 1
