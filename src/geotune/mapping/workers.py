"""Workers, wherever they run, and the loop that gives them their jobs."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from geotune.errors import GeotuneError

Job = Mapping[str, Any]
"""`{"tile": number, "runs": [index, ...]}` or `{"scene": name, "run": index}`."""

MAX_LOSSES = 3
"""Workers that a job may cost before it is given up: it may need more memory than there is."""

MAX_STARTS = 5
"""Workers in one place that may end before they are ready, one after the other."""


@dataclass(frozen=True)
class MappedRun:
    """A run and where its map is, as plain values.

    Attributes:
        name: of the run, for messages.
        out: the output folder.
        run: the run or adapter.
        options: see `MapOptions`.
    """

    name: str
    out: str
    run: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class WorkerOptions:
    """What a worker is started with, as plain values.

    Attributes:
        runs: what is mapped; they differ in their `PredictOptions` at most.
        files: where the models are, see `LoadOptions`.
        number: of the worker.
    """

    runs: Sequence[MappedRun]
    files: Mapping[str, Any]
    number: int = 0

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> WorkerOptions:
        """The options of `dataclasses.asdict`."""
        return cls(**{**values, "runs": [MappedRun(**each) for each in values["runs"]]})

    @property
    def threads(self) -> int:
        """CPU threads of the worker."""
        threads: int = self.runs[0].options["threads"]
        return threads

    @property
    def device(self) -> str:
        """See `MapOptions`."""
        device: str = self.runs[0].options["device"]
        return device


class WorkerLostError(Exception):
    """A worker ended; what it was doing can be done again."""


class Worker(Protocol):
    """A process with a loaded model."""

    def ask(self, request: Any) -> dict[str, Any]:
        """Have a job done. Raises `WorkerLostError` if the worker ends before."""
        ...

    def close(self) -> None:
        """End the worker."""
        ...


class Workers(Protocol):
    """Where workers run."""

    def start(self, number: int) -> Worker:
        """Start a worker. Raises `WorkerLostError` if it ends before it is ready."""
        ...

    def close(self) -> None:
        """End all workers."""
        ...


def run_jobs(
    workers: Workers,
    count: int,
    jobs: Sequence[Job],
    on_result: Callable[[Job, dict[str, Any]], None],
    on_tick: Callable[[], None] = lambda: None,
) -> None:
    """Have jobs done by `count` workers; a job of a worker that ended is given to another.

    A job that costs `MAX_LOSSES` workers has the result `{"error": ..., "code": "worker-lost"}`.

    Args:
        workers: where they run; closed at the end.
        count: number of workers at once.
        jobs: in any order.
        on_result: receives each job and its result, one at a time.
        on_tick: called about every second.

    Raises the first error of a worker, and `GeotuneError` if none can be started.
    """
    loop = _Loop(workers, deque(jobs), on_result)
    threads = [
        threading.Thread(target=loop.serve, args=(number,), daemon=True)
        for number in range(max(1, min(count, len(jobs))))
    ]
    try:
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            next(thread for thread in threads if thread.is_alive() or thread is threads[-1]).join(1)
            on_tick()
    finally:
        loop.stopped.set()
        workers.close()
    if loop.error is not None:
        raise loop.error


class _Loop:
    """The jobs that are left, and what the threads of all workers share."""

    def __init__(
        self, workers: Workers, jobs: deque[Job], on_result: Callable[[Job, dict[str, Any]], None]
    ) -> None:
        self.workers, self.jobs, self.on_result = workers, jobs, on_result
        self.error: BaseException | None = None
        self.stopped = threading.Event()
        self.changed = threading.Condition()
        self.running = 0
        self.losses: Counter[str] = Counter()

    def serve(self, number: int) -> None:
        """Keep one worker busy until no job is left, and replace it when it ends."""
        worker: Worker | None = None
        starts = 0
        try:
            while (job := self._next()) is not None:
                try:
                    if worker is None:
                        worker = self.workers.start(number)
                        starts = 0
                    result = worker.ask(job)
                except WorkerLostError as error:
                    started = worker is not None
                    if worker is not None:
                        worker.close()
                        worker = None
                    starts += 1
                    if starts >= MAX_STARTS:
                        raise _cannot_start(error) from error
                    self._lost(job, started)
                    time.sleep(0.05)
                else:
                    self._finish(job, result)
        except BaseException as error:
            with self.changed:
                self.error = self.error or error
                self.stopped.set()
                self.changed.notify_all()
        finally:
            if worker is not None:
                worker.close()

    def _next(self) -> Job | None:
        """The next job; waits for those of others, which may come back."""
        with self.changed:
            while not self.jobs and self.running and not self.stopped.is_set():
                self.changed.wait(0.5)
            if self.stopped.is_set() or not self.jobs:
                return None
            self.running += 1
            return self.jobs.popleft()

    def _finish(self, job: Job, result: dict[str, Any]) -> None:
        with self.changed:
            if self.stopped.is_set():
                return
            self.on_result(job, result)
            self.running -= 1
            self.changed.notify_all()

    def _lost(self, job: Job, started: bool) -> None:
        with self.changed:
            self.losses[str(job)] += started
            if self.losses[str(job)] < MAX_LOSSES:
                self.jobs.append(job)
            else:
                text = (
                    f"{MAX_LOSSES} workers ended while they computed it, perhaps because memory "
                    "ran out: use fewer workers"
                )
                self.on_result(job, {"error": text, "code": "worker-lost"})
            self.running -= 1
            self.changed.notify_all()


def _cannot_start(error: WorkerLostError) -> GeotuneError:
    reason = f" ({error})" if str(error) else ""
    return GeotuneError(
        f"map: {MAX_STARTS} workers in a row ended before they were ready{reason}; check the "
        "memory of the machine, and use fewer --workers",
        code="worker-lost",
        key="--workers",
    )
