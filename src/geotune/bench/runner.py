"""Run a suite sequentially or in parallel; finished runs are skipped."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from geotune.bench.grid import RunSpec, folder_name
from geotune.bench.hparam_search import Objective, SearchResult, search, with_best
from geotune.bench.local_executor import Job, JobResult, is_done
from geotune.bench.results import ROWS, RUNS, TRIALS, Row, grid_labels, row_of, write_rows
from geotune.bench.suite import Search
from geotune.config.decoder_options import ProbeOptions
from geotune.config.schema import files_of_recipe
from geotune.errors import GeotuneError


def is_trained(spec: RunSpec) -> bool:
    """Whether a learning rate or the like matters; a fitted classifier has none."""
    return not isinstance(spec.recipe.decoder, ProbeOptions)


class Executor(Protocol):
    """Runs jobs, on this machine or a cluster."""

    def run(self, job: Job) -> JobResult:
        """Run a job; a failure is returned as the result's `error`."""

    def stop(self) -> None:
        """Stop the running jobs."""


@dataclass(frozen=True)
class Execution:
    """Settings of running a suite.

    Attributes:
        folder: the folder of the suite.
        executor: runs the jobs.
        workers: parallel runs.
        objectives: the objective of each recipe, used by a search.
        on_result: called with a run's name, its status, finished and total runs.
        searches: the search for each recipe before the runs, if any.
        earlier: rows of earlier starts; those of this one replace them.
    """

    folder: Path
    executor: Executor
    workers: int
    objectives: Mapping[str, Objective]
    on_result: Callable[[str, str, int, int], None]
    searches: Mapping[str, Search] = field(default_factory=dict)
    earlier: Sequence[Row] = ()

    def run(self, specs: Sequence[RunSpec]) -> list[Row]:
        """Run everything and return the rows in order; they are written after each run.

        Runs whose folders are complete are skipped. Ctrl+C stops the running jobs and keeps the
        rows written so far.
        """
        earlier = {row["run"]: row for row in self.earlier}
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                searched = self._search(pool, specs)
                return self._all(pool, specs, searched, earlier)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.executor.stop()
                raise

    def _search(
        self, pool: ThreadPoolExecutor, specs: Sequence[RunSpec]
    ) -> dict[str, SearchResult | GeotuneError]:
        """The result or error of the search for each group of seeds."""
        if not self.searches:
            return {}
        groups = {folder_name(spec.group): spec for spec in specs if is_trained(spec)}
        futures = {
            pool.submit(self._search_spec, name, spec): name for name, spec in groups.items()
        }
        searched: dict[str, SearchResult | GeotuneError] = {}
        for future in as_completed(futures):
            name = futures[future]
            try:
                best = future.result()
                searched[name], message = best, f"{best.key} {best.value:g}"
            except GeotuneError as error:
                searched[name], message = error, "failed"
            self.on_result(f"search {name}", message, len(searched), len(groups))
        return searched

    def _search_spec(self, name: str, spec: RunSpec) -> SearchResult:
        recipe = spec.labels["recipe"]
        folder = self.folder / TRIALS / name
        return search(
            self.searches[recipe],
            spec,
            self.objectives[recipe],
            folder,
            lambda trial, run: self._run_job(trial, run, tests=False),
        )

    def _all(
        self,
        pool: ThreadPoolExecutor,
        specs: Sequence[RunSpec],
        searched: Mapping[str, SearchResult | GeotuneError],
        earlier: Mapping[str, Row],
    ) -> list[Row]:
        runs: dict[str, list[int]] = {}
        for i, spec in enumerate(specs):
            runs.setdefault(spec.name, []).append(i)
        rows: dict[int, Row] = {}
        kept = dict(earlier)
        futures: dict[Future[Row], str] = {
            pool.submit(self._row, specs[same[0]], searched, earlier): name
            for name, same in runs.items()
        }
        for done, future in enumerate(as_completed(futures), start=1):
            name, row = futures[future], future.result()
            kept.pop(name, None)
            for i in runs[name]:
                rows[i] = row | grid_labels(specs[i])
            write_rows(self.folder / ROWS, [*kept.values(), *(rows[i] for i in sorted(rows))])
            self.on_result(name, row["error"] or "done", done, len(runs))
        return [rows[i] for i in range(len(specs))]

    def _row(
        self,
        spec: RunSpec,
        searched: Mapping[str, SearchResult | GeotuneError],
        earlier: Mapping[str, Row],
    ) -> Row:
        found: dict[str, Any] | None = None
        if self.searches and is_trained(spec):
            best = searched[folder_name(spec.group)]
            if isinstance(best, GeotuneError):
                return row_of(spec, self.folder, JobResult(str(best)), None)
            spec = with_best(self.searches[spec.labels["recipe"]], spec, best.value)
            found = best.as_row()
        run = self.folder / RUNS / spec.name
        earlier_cost = earlier.get(spec.name, {}).get("cost") or {}
        result = self._run_job(spec, run, joules=earlier_cost.get("joules"))
        return row_of(spec, run, result, found)

    def _run_job(
        self, spec: RunSpec, run: Path, *, tests: bool = True, joules: float | None = None
    ) -> JobResult:
        """Run a job unless it is finished; `joules`: its known energy in that case."""
        if is_done(run, spec.recipe, tests=tests):
            return JobResult(joules=joules)
        job = Job(
            str(spec.path),
            spec.overrides,
            str(run),
            tests,
            max(1, (os.cpu_count() or 1) // self.workers) if self.workers > 1 else None,
            os.getcwd(),
            files_of_recipe(spec.recipe),
        )
        return self.executor.run(job)
