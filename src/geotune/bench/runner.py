"""All runs of a suite, in order or several at a time, each once however often it is started."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from geotune.bench.grid import RunSpec, folder_name
from geotune.bench.hparam_search import Objective, SearchResult, search, with_best
from geotune.bench.local_executor import Job, JobResult, is_done
from geotune.bench.results import ROWS, Row, chosen, read_rows, row_of, write_rows
from geotune.bench.suite import Search
from geotune.errors import GeotuneError

RUNS, TRIALS = "runs", "search"


class Executor(Protocol):
    """What does work: this machine, or a cluster."""

    def run(self, work: Job) -> JobResult:
        """Do it; a run that fails is an outcome with an error."""

    def stop(self) -> None:
        """End what is being done."""


@dataclass(frozen=True)
class Execution:
    """How a suite is run.

    Attributes:
        folder: of the suite.
        doer: what does the work.
        workers: runs at a time.
        goals: by recipe's name, for a search.
        tell: is told a run's name, what came of it, runs done and in all.
    """

    folder: Path
    doer: Executor
    workers: int
    goals: Mapping[str, Objective]
    tell: Callable[[str, str, int, int], None]
    search: Search | None = None

    def run(self, cells: Sequence[RunSpec]) -> list[Row]:
        """The rows of all cells, in their order; after each run they are written anew.

        What is done already, as the run folders say, is not done again. Ctrl+C ends what is being
        done and leaves the rows that there are.
        """
        earlier = {row["run"]: row for row in read_rows(self.folder / ROWS)}
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                found = self._search(pool, cells)
                return self._all(pool, cells, found, earlier)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                self.doer.stop()
                raise

    def _search(
        self, pool: ThreadPoolExecutor, cells: Sequence[RunSpec]
    ) -> dict[str, SearchResult | GeotuneError]:
        """By the name of a group of seeds what was found, or why nothing was."""
        if self.search is None:
            return {}
        groups = {folder_name(cell.group): cell for cell in cells}
        futures = {pool.submit(self._look, name, cell): name for name, cell in groups.items()}
        found: dict[str, SearchResult | GeotuneError] = {}
        for future in as_completed(futures):
            name = futures[future]
            try:
                best = future.result()
                found[name], said = best, f"{best.key} {best.value:g}"
            except GeotuneError as error:
                found[name], said = error, "failed"
            self.tell(f"search {name}", said, len(found), len(groups))
        return found

    def _look(self, name: str, cell: RunSpec) -> SearchResult:
        assert self.search is not None
        goal = self.goals[cell.labels["recipe"]]
        folder = self.folder / TRIALS / name
        return search(
            self.search, cell, goal, folder, lambda trial, run: self._do(trial, run, tests=False)
        )

    def _all(
        self,
        pool: ThreadPoolExecutor,
        cells: Sequence[RunSpec],
        found: Mapping[str, SearchResult | GeotuneError],
        earlier: Mapping[str, Row],
    ) -> list[Row]:
        runs: dict[str, list[int]] = {}
        for i, cell in enumerate(cells):
            runs.setdefault(cell.name, []).append(i)
        rows: dict[int, Row] = {}
        futures: dict[Future[Row], str] = {
            pool.submit(self._row, cells[same[0]], found, earlier): name
            for name, same in runs.items()
        }
        for done, future in enumerate(as_completed(futures), start=1):
            name, row = futures[future], future.result()
            for i in runs[name]:
                rows[i] = row | chosen(cells[i])
            write_rows(self.folder / ROWS, (rows[i] for i in sorted(rows)))
            self.tell(name, row["error"] or "done", done, len(runs))
        return [rows[i] for i in range(len(cells))]

    def _row(
        self,
        cell: RunSpec,
        found: Mapping[str, SearchResult | GeotuneError],
        earlier: Mapping[str, Row],
    ) -> Row:
        searched: dict[str, Any] | None = None
        if self.search is not None:
            best = found[folder_name(cell.group)]
            if isinstance(best, GeotuneError):
                return row_of(cell, self.folder, JobResult(str(best)), None)
            cell, searched = with_best(self.search, cell, best.value), best.as_row()
        run = self.folder / RUNS / cell.name
        before = earlier.get(cell.name, {}).get("cost") or {}
        outcome = self._do(cell, run, joules=before.get("joules"))
        return row_of(cell, run, outcome, searched)

    def _do(
        self, cell: RunSpec, run: Path, *, tests: bool = True, joules: float | None = None
    ) -> JobResult:
        """Have a cell trained; `joules` are those of a run that is done."""
        if is_done(run, cell.recipe, tests=tests):
            return JobResult(joules=joules)
        work = Job(
            str(cell.path),
            cell.overrides,
            str(run),
            tests,
            max(1, (os.cpu_count() or 1) // self.workers) if self.workers > 1 else None,
            os.getcwd(),
        )
        return self.doer.run(work)
