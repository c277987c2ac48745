"""The loop that gives workers their jobs."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from geotune.errors import GeotuneError
from geotune.mapping.workers import MAX_LOSSES, MAX_STARTS, Job, WorkerLostError, run_jobs
from helpers.errors import raises


class Fakes:
    """Workers that end at the calls whose numbers are given, or always for a job."""

    def __init__(self, dies_at: set[int] = frozenset(), deadly: Any = None) -> None:
        self.dies_at, self.deadly = dies_at, deadly
        self.calls, self.started, self.closed = 0, 0, False
        self.lock = threading.Lock()

    def start(self, number: int) -> Any:
        self.started += 1
        return self

    def ask(self, job: Job) -> dict[str, Any]:
        with self.lock:
            self.calls += 1
            if self.calls in self.dies_at or job == self.deadly:
                raise WorkerLostError
        return {"of": job["tile"]}

    def close(self) -> None:
        self.closed = True


def results_of(workers: Any, count: int = 3, jobs: int = 20) -> Counter[str]:
    results: list[str] = []
    run_jobs(
        workers, count, [{"tile": n} for n in range(jobs)],
        lambda job, result: results.append(f"{job['tile']} {result.get('code', 'done')}"),
    )  # fmt: skip
    return Counter(results)


def test_jobs_of_lost_workers_are_done_by_others() -> None:
    workers = Fakes(dies_at={1, 2, 7, 20})
    assert results_of(workers) == Counter(f"{n} done" for n in range(20))
    assert workers.started >= 4 and workers.closed


def test_a_job_that_costs_workers_is_given_up() -> None:
    workers = Fakes(deadly={"tile": 5})
    results = results_of(workers)
    assert results.pop("5 worker-lost") == 1
    assert results == Counter(f"{n} done" for n in range(20) if n != 5)
    assert workers.calls == 19 + MAX_LOSSES


def test_the_error_of_a_worker_stops_all() -> None:
    class Failing(Fakes):
        def ask(self, job: Job) -> dict[str, Any]:
            if job["tile"] == 3:
                raise GeotuneError("disk full", code="output-not-writable")
            return super().ask(job)

    workers = Failing()
    with pytest.raises(GeotuneError, match="disk full"):
        results_of(workers, jobs=1000)
    assert workers.closed and workers.calls < 999


def test_workers_that_cannot_start_are_reported() -> None:
    class Dead(Fakes):
        def start(self, number: int) -> Any:
            self.started += 1
            raise WorkerLostError("no memory")

    workers = Dead()
    with raises("worker-lost", mentions=["no memory"]):
        results_of(workers, count=1)
    assert workers.started == MAX_STARTS
