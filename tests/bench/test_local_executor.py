"""A run in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import geotune
from geotune.bench.local_executor import Job, LocalExecutor, StoppedError


def test_what_went_wrong_is_said_in_the_words_of_the_command(tmp_path: Path) -> None:
    outcome = LocalExecutor().run(Job("none.yaml", (), "run", where=str(tmp_path)))
    assert (
        outcome.error == "none.yaml: cannot be read (No such file or directory); give a recipe file"
    )
    assert outcome.joules is None


def test_after_stopping_nothing_begins(tmp_path: Path) -> None:
    worker = LocalExecutor()
    worker.stop()
    with pytest.raises(StoppedError):
        worker.run(Job("none.yaml", (), "run", where=str(tmp_path)))


def test_a_command_ends_when_its_starter_is_gone() -> None:
    """`geotune.bench.subprocess_entry` reads a pipe that is closed, and ends at once."""
    child = subprocess.Popen(
        [sys.executable, "-m", "geotune.bench.subprocess_entry", '["list", "methods"]', '["demo"]'],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(geotune.__file__).resolve().parents[1])},
        stdout=subprocess.PIPE,
    )
    assert child.wait(60) == 1
