"""Run `geotune fit` and `geotune test` of a suite in subprocesses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import geotune
from geotune.bench.energy import EnergyMeter
from geotune.errors import GeotuneError
from geotune.training.run_dir import RunDir


@dataclass(frozen=True)
class Job:
    """One training for an executor, as serialisable values.

    Attributes:
        path: the recipe file.
        overrides: `key=value` overrides of the recipe.
        run: the run folder.
        tests: whether to test the model; trials of a search are not tested.
        threads: CPU threads to use; None for the default of the machine.
        working_dir: the folder that paths are relative to.
        trusted: backbone and method of the recipe that are Python files, see `files_of_recipe`.
    """

    path: str
    overrides: tuple[str, ...]
    run: str
    tests: bool = True
    threads: int | None = None
    working_dir: str = "."
    trusted: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JobResult:
    """The result of a job.

    Attributes:
        error: why it failed; None if it succeeded.
        joules: energy used; None if it was not measured or the run was resumed.
    """

    error: str | None = None
    joules: float | None = None


class StoppedError(Exception):
    """The user stopped the suite."""


class LocalExecutor:
    """Runs jobs on this machine; thread-safe."""

    def __init__(self) -> None:
        self._children: set[subprocess.Popen[str]] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def run(self, job: Job) -> JobResult:
        """Train and test; finished steps are skipped. Raises `StoppedError` after `stop`."""
        resumed = RunDir(Path(job.working_dir, job.run)).has_checkpoint
        meter = EnergyMeter()
        options = (f"train.run={job.run}", "train.keep_checkpoint=false", "--estimate-memory")
        fit = ["fit", job.path, *job.overrides, *options]
        trusted = [text for name, value in job.trusted.items() for text in (f"--{name}", value)]
        test = ["test", job.run, *trusted]
        error = self._commands([fit, test] if job.tests else [fit], job)
        return JobResult(error, None if resumed or error else meter.joules())

    def stop(self) -> None:
        """Terminate the running jobs; they can be resumed from their last epoch."""
        with self._lock:
            self._stopped = True
            for child in self._children:
                child.terminate()

    def _commands(self, commands: Sequence[Sequence[str]], job: Job) -> str | None:
        """Run geotune commands in one subprocess; returns an error message, or None."""
        # The subprocess must import this copy of geotune, not an installed one.
        roots = [str(Path(geotune.__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, roots))}
        if job.threads is not None:
            environment["OMP_NUM_THREADS"] = str(job.threads)
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
                cwd=job.working_dir,
                env=environment,
                start_new_session=True,  # the suite handles Ctrl+C
            )
            self._children.add(child)
        # Not communicate(): it closes stdin, which tells the child that this process ended.
        stderr_text: list[str] = []
        stdout, stderr = child.stdout, child.stderr
        assert stdout is not None and stderr is not None
        listener = threading.Thread(target=lambda: stderr_text.append(stderr.read()))
        listener.start()
        stdout_text = stdout.read()
        listener.join()
        code = child.wait()
        with self._lock:
            self._children.discard(child)
            for pipe in (child.stdin, child.stdout, child.stderr):
                if pipe is not None:
                    pipe.close()
            if self._stopped:
                raise StoppedError
        return None if code == 0 else _reason(code, stdout_text, stderr_text[0])


def _reason(code: int, stdout_text: str, stderr_text: str) -> str:
    """The error message of a failed subprocess."""
    if code < 0:
        hint = " (possibly out of memory)" if code == -9 else ""
        return f"terminated by signal {-code}{hint}"
    for line in reversed(stdout_text.strip().splitlines()):
        try:
            parsed: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(parsed, dict) and "error" in parsed:
            return str(parsed["error"])
    last = stderr_text.strip().splitlines()
    return f"failed with exit code {code}: {last[-1] if last else 'no message'}"


def is_done(run: Path, recipe: Any, *, tests: bool = True) -> bool:
    """Whether a run folder holds all results of a job with this recipe."""
    folder = RunDir(run)
    try:
        if not folder.is_finished(folder.with_saved_defaults(recipe)):
            return False
        return not tests or (
            "test" in folder.read_json("metrics") and folder.test_windows.is_file()
        )
    except GeotuneError:
        return False
