"""One process at a time in a run folder, whatever happened to the one before."""

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
from geotune.errors import GeotuneError
from geotune.training.lock import exclusive_lock
from geotune.training.run_dir import RunDir

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
    """A folder that another process holds, which has forked a worker as data loaders do."""
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


def test_the_second_is_refused_and_a_killed_one_is_not_in_the_way(
    held: tuple[subprocess.Popen[str], Path],
) -> None:
    process, run = held
    refused = rf"held: process {process.pid} on \S+, since 2.*, is at work there; wait"
    for _ in range(2):  # being refused takes nothing from the holder
        with pytest.raises(GeotuneError, match=refused), exclusive_lock(run):
            pass
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # its forked worker lives on
    said: list[str] = []
    with exclusive_lock(run, said.append):
        pass
    (line,) = said
    assert f"process {process.pid} on " in line and line.endswith("has ended there unfinished")
    with exclusive_lock(run, said.append):
        pass
    assert said == [line]  # the one before ended in order


@pytest.mark.parametrize("changes", [{}, {"train.epochs": 9}], ids=["same", "another"])
@pytest.mark.parametrize("fresh", [False, True])
def test_nothing_is_touched_where_another_trains(
    train: Train,
    held: tuple[subprocess.Popen[str], Path],
    tiny_values: Callable[..., dict[str, Any]],
    fresh: bool,
    changes: dict[str, Any],
) -> None:
    from geotune.config import parse_recipe

    _, run = held
    RunDir(run).create(parse_recipe(tiny_values()))
    before = {path: path.read_bytes() for path in run.iterdir()}
    with pytest.raises(GeotuneError, match=r"is at work there|holds a run of another recipe"):
        train(run, changes, fresh=fresh)
    assert {path: path.read_bytes() for path in run.iterdir()} == before


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", none)
    said: list[str] = []
    with exclusive_lock(tmp_path, said.append), exclusive_lock(tmp_path, said.append):
        pass
    assert "no locks; see to it that no other process works there" in said[0]
    assert said[1].endswith(" may") and f"process {os.getpid()} on" in said[1]


def test_begun_by_another_in_the_meantime(
    train: Train, tmp_path: Path, tiny_values: Callable[..., dict[str, Any]]
) -> None:
    """Both found no folder; the other was done before this one had read its data."""
    from geotune.config import parse_recipe

    run = tmp_path / "run"

    def say(text: str) -> None:
        if text == "building the model":
            RunDir(run).create(parse_recipe(tiny_values()))

    with pytest.raises(GeotuneError, match="another process has begun a run there in the meantime"):
        train(run, on_message=say)


def test_a_recipe_that_was_mended_starts_anew(train: Train, tmp_path: Path) -> None:
    """A rate far too high: no number in the first epoch, and nothing that was worth keeping."""
    run = tmp_path / "run"
    with pytest.raises(GeotuneError, match="the loss is"):
        train(run, {"train.lr": 1e30, "train.grad_clip_norm": 0, "train.schedule": "constant"})
    assert not RunDir(run).history.exists()
    result = train(run, {"train.epochs": 1})
    assert result.status == "trained" and result.summary["epochs"] == 1
    train(tmp_path / "other", {"train.epochs": 1})
    files = [path / "adapter.safetensors" for path in (run, tmp_path / "other")]
    assert files[0].read_bytes() == files[1].read_bytes()
