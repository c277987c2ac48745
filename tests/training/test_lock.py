"""Exclusive access to a run folder, also after a holder was killed."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from geotune.api.fitting import FitResult
from geotune.training.lock import exclusive_lock
from geotune.training.run_dir import RunDir
from helpers.errors import raises

Train = Callable[..., FitResult]
HOLDER = """
import multiprocessing, sys, time
from pathlib import Path
from geotune.training.lock import exclusive_lock
with exclusive_lock(Path(sys.argv[1])):
    worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
    worker.start()
    print(worker.pid, flush=True)
    time.sleep(600)
"""


@pytest.fixture
def held(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A folder locked by another process, which has forked a worker like a data loader."""
    run = tmp_path / "held"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    command = [sys.executable, "-c", HOLDER, str(run)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    yield process, run
    for pid in (process.pid, worker):
        os.kill(pid, signal.SIGKILL)
    process.wait()


def test_second_process_is_rejected_until_the_first_is_killed(
    held: tuple[subprocess.Popen[str], Path],
) -> None:
    process, run = held
    holder = f"process {process.pid} on "
    for _ in range(2):  # a failed attempt does not release the lock
        with raises("run-in-use", file=run, mentions=[holder]), exclusive_lock(run):
            pass
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its forked worker survives
    messages: list[str] = []
    with exclusive_lock(run, messages.append):
        pass
    (line,) = messages
    assert holder in line and line.endswith("was interrupted there")
    with exclusive_lock(run, messages.append):
        pass
    assert messages == [line]  # the previous holder released the lock


@pytest.mark.parametrize("changes", [{}, {"train.epochs": 9}], ids=["same", "another"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_locked_folder_is_unchanged(
    train: Train,
    held: tuple[subprocess.Popen[str], Path],
    tiny_values: Callable[..., dict[str, Any]],
    overwrite: bool,
    changes: dict[str, Any],
) -> None:
    from geotune.config import parse_recipe

    _, run = held
    RunDir(run).create(parse_recipe(tiny_values()))
    before = {path: path.read_bytes() for path in run.iterdir()}
    with raises("run-in-use", key="train.run", file=run):
        train(run, changes, overwrite=overwrite)
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_file_system_without_locks_gives_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    messages: list[str] = []
    with exclusive_lock(tmp_path, messages.append), exclusive_lock(tmp_path, messages.append):
        pass
    assert "does not support locks" in messages[0]
    assert messages[1].endswith(" may") and f"process {os.getpid()} on" in messages[1]


def test_run_started_by_another_process_meanwhile_is_rejected(
    train: Train, tmp_path: Path, tiny_values: Callable[..., dict[str, Any]]
) -> None:
    """Both found no folder; the other one started while this one read its data."""
    from geotune.config import parse_recipe

    run = tmp_path / "run"

    def start_other_run(text: str) -> None:
        if text == "building the model":
            RunDir(run).create(parse_recipe(tiny_values()))

    with raises("run-in-use", key="train.run", file=run):
        train(run, on_message=start_other_run)


def test_fixed_recipe_starts_again_after_a_failed_first_epoch(train: Train, tmp_path: Path) -> None:
    """A learning rate far too high: the loss is not finite, and no epoch was completed."""
    run = tmp_path / "run"
    with raises("loss-not-finite", key="train.lr"):
        train(run, {"train.lr": 1e30, "train.grad_clip_norm": 0, "train.schedule": "constant"})
    assert not RunDir(run).history.exists()
    result = train(run, {"train.epochs": 1})
    assert result.status == "trained" and result.summary["epochs"] == 1
    train(tmp_path / "other", {"train.epochs": 1})
    files = [path / "adapter.safetensors" for path in (run, tmp_path / "other")]
    assert files[0].read_bytes() == files[1].read_bytes()
