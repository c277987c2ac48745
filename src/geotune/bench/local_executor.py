"""One run of a suite: `geotune fit` and `geotune test` in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geotune
from geotune.bench.energy import EnergyWatch
from geotune.errors import GeotuneError
from geotune.training.run_dir import RunDir


@dataclass(frozen=True)
class Job:
    """What a worker is told: plain values, so that any machine can be sent them.

    Attributes:
        path: of the recipe.
        overrides: its changes.
        run: the run folder.
        tests: whether it is tested, too; trials of a search are not.
        threads: that it may use; None: as the machine's settings say.
        where: the folder that paths are relative to.
    """

    path: str
    overrides: tuple[str, ...]
    run: str
    tests: bool = True
    threads: int | None = None
    where: str = "."


@dataclass(frozen=True)
class JobResult:
    """What it came to.

    Attributes:
        error: of a run that failed, in words.
        joules: that it took; None where nothing counts them, or a part of it was done before.
    """

    error: str | None = None
    joules: float | None = None


class StoppedError(Exception):
    """The suite is stopped by its user."""


class LocalExecutor:
    """Does work on this machine. Several threads may use one."""

    def __init__(self) -> None:
        self._children: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, work: Job) -> JobResult:
        """Fit, and test; what is done already is not done again.

        Raises `StoppedError` after `stop`.
        """
        begun = RunDir(Path(work.where, work.run)).has_checkpoint
        watch = EnergyWatch()
        fit = ["fit", work.path, *work.overrides, f"train.run={work.run}"]
        error = self._commands([fit, ["test", work.run]] if work.tests else [fit], work)
        return JobResult(error, None if begun or error else watch.joules())

    def stop(self) -> None:
        """End what is being done; every run goes on from its last epoch another time."""
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.terminate()

    def _commands(self, commands: Sequence[Sequence[str]], work: Job) -> str | None:
        """Run commands of geotune in one process; what went wrong, or None."""
        # The child is to be this geotune, whatever copy is installed.
        roots = [str(Path(geotune.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, roots))}
        if work.threads is not None:
            environment["OMP_NUM_THREADS"] = str(work.threads)
        with self._lock:
            if self._stopped:
                raise StoppedError
            child = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "geotune.bench.subprocess_entry",
                    *map(json.dumps, commands),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=work.where,
                env=environment,
                start_new_session=True,  # Ctrl+C on the terminal is the suite's to answer
            )
            self._children.add(child)
        # Read in a thread of its own: communicate would close the pipe that stands for us.
        said: list[str] = []
        stdout, stderr = child.stdout, child.stderr
        assert stdout is not None and stderr is not None
        listener = threading.Thread(target=lambda: said.append(stderr.read()))
        listener.start()
        out = stdout.read()
        listener.join()
        code = child.wait()
        with self._lock:
            self._children.discard(child)
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()
            if self._stopped:
                raise StoppedError
        return None if code == 0 else _reason(code, out, said[0])


def _reason(code: int, out: str, said: str) -> str:
    """Why a run failed, in the words it used."""
    if code < 0:
        why = " (as the system does where memory runs out)" if code == -9 else ""
        return f"was ended by signal {-code}{why}"
    for line in reversed(out.strip().splitlines()):
        try:
            found: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and "error" in found:
            return str(found["error"])
    last = said.strip().splitlines()
    return f"failed with exit code {code}: {last[-1] if last else 'no message'}"


def is_done(run: Path, recipe: Any, *, tests: bool = True) -> bool:
    """Whether a run folder holds all that work on this recipe leaves."""
    folder = RunDir(run)
    try:
        if not folder.is_finished(folder.with_saved_defaults(recipe)):
            return False
        return not tests or (
            "test" in folder.read_json("metrics") and folder.test_windows.is_file()
        )
    except GeotuneError:
        return False
