"""`geotune bench`: everything is checked before the first run, then run, then compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geotune.bench.external_results import read_external_results
from geotune.bench.grid import RunSpec, expand
from geotune.bench.results import ROWS, Row, chosen, read_rows
from geotune.bench.suite import Search, Suite, nearest, read_suite
from geotune.errors import GeotuneError, RecipeError
from geotune.training.lock import exclusive_lock
from geotune.utils.atomic import write_atomically

PAGE = "bench.html"


@dataclass(frozen=True)
class Benched:
    """What a suite came to.

    Attributes:
        folder: of the suite, with its rows, tables and page.
        rows: of all runs.
        tables: see `comparison.Table`.
        suite: as read.
    """

    folder: Path
    rows: list[Row]
    tables: list[Any]
    suite: Suite


def bench(
    path: Path,
    *,
    workers: int | None = None,
    ray: str | None = None,
    table_only: bool = False,
    say: Callable[[str], None] = lambda text: None,
    tell: Callable[[str, str, int, int], None] = lambda run, what, done, total: None,
) -> Benched:
    """Run a suite, or what is left of it, and write its tables and page.

    Args:
        path: of the suite.
        workers: runs at a time; by default the suite's, on a cluster one a processor.
        ray: address of a Ray cluster.
        table_only: run nothing: compare the rows that there are.
        say: is told what a user should know.
        tell: is told of each run that is done: its name, what came of it, runs done and in all.

    Raises `RecipeError` and `GeotuneError` for what is wrong with the suite, before anything runs.
    """
    suite = read_suite(path)
    folder = suite.folder or Path("runs/bench") / path.stem
    cells, notes = expand(suite)
    for note in notes:
        say(f"note: {note}")
    published = [figure for each in suite.published for figure in read_external_results(each)]
    _check_compare(suite, cells)
    if suite.search is not None:
        _check_search(suite.search, cells)
    from geotune.bench.objectives import objectives_of  # imports torch, for seconds

    goals, pages = objectives_of(suite, cells)
    rows = (
        _rows_there(folder, cells)
        if table_only
        else _run(suite, folder, path, cells, goals, workers, ray, tell)
    )
    from geotune.bench.analysis import compare
    from geotune.bench.comparison_tables import as_csv, as_latex, as_markdown
    from geotune.bench.disagreements import find_disagreements
    from geotune.bench.html import PageContext, render
    from geotune.bench.pareto_plots import fronts, write_figures
    from geotune.report.page import write_page

    say("comparing")
    kept = [(cell, row) for cell, row in zip(cells, rows, strict=True) if row is not None]
    tables = compare([c for c, _ in kept], [r for _, r in kept], goals, suite.compare, folder)
    how = suite.compare
    for name, text in (
        ("table.md", as_markdown(tables, how)),
        ("table.csv", as_csv(tables)),
        ("table.tex", as_latex(tables, how)),
    ):
        write_atomically(folder / name, text.encode())
    say("drawing")
    figures = [fronts(table, number) for number, table in enumerate(tables)]
    write_figures(folder / "figures", tables, figures)
    maps = [found for table in tables if (found := find_disagreements(table, folder)) is not None]
    devices = dict.fromkeys(row["cost"]["device"] for _, row in kept if row["error"] is None)
    content = PageContext(
        path.stem, tables, figures, how, pages, maps, published, notes, ", ".join(devices)
    )
    write_page(folder / PAGE, render(content))
    return Benched(folder, [row for _, row in kept], tables, suite)


def _run(
    suite: Suite,
    folder: Path,
    path: Path,
    cells: Sequence[RunSpec],
    goals: Any,
    workers: int | None,
    ray: str | None,
    tell: Callable[[str, str, int, int], None],
) -> list[Row]:
    from geotune.bench.local_executor import LocalExecutor
    from geotune.bench.runner import Execution, Executor

    at_once = workers or suite.workers
    doer: Executor
    if ray is None:
        doer = LocalExecutor()
    else:
        from geotune.bench.ray_executor import RayExecutor

        doer = RayExecutor(ray)
        at_once = workers or doer.processors
    with exclusive_lock(folder):
        write_atomically(folder / "suite.yaml", path.read_bytes())
        return Execution(folder, doer, at_once, goals, tell, suite.search).run(cells)


def _rows_there(folder: Path, cells: Sequence[RunSpec]) -> list[Row | None]:
    """The rows of an earlier start, by cell."""
    found = {row["run"]: row for row in read_rows(folder / ROWS)}
    rows = [found[cell.name] | chosen(cell) if cell.name in found else None for cell in cells]
    if not any(rows):
        raise GeotuneError(
            f"{folder / ROWS}: holds no row of this suite; run it without --table-only"
        )
    return rows


def _check_compare(suite: Suite, cells: Sequence[RunSpec]) -> None:
    if cells[0].axis in suite.compare.over:
        raise RecipeError(f"compare.over: {cells[0].axis} is what is compared; leave it out")
    to = suite.compare.to
    methods = dict.fromkeys(cell.method for cell in cells)
    if to is not None and to not in methods:
        raise RecipeError(f"compare.to: {to!r} is no method of this suite; {nearest(to, methods)}")


def _check_search(search: Search, cells: Sequence[RunSpec]) -> None:
    from geotune.bench.hparam_search import load_optuna, trial_of

    load_optuna()
    for cell in {str(cell.group): cell for cell in cells}.values():
        try:
            for value in (search.low, search.high):
                trial_of(search, cell, value)
        except RecipeError as error:
            raise RecipeError(f"search for {search.key}: {cell.name}: {error}") from error
