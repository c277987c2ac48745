"""`geotune bench`: validate a suite, run it, compare the results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from geotune.bench.external_results import read_external_results
from geotune.bench.grid import RunSpec, expand, folder_name
from geotune.bench.leaderboard import check_tasks, write_submission
from geotune.bench.results import (
    ROWS,
    RUNS,
    TRIALS,
    Row,
    check_same_code,
    check_same_recipes,
    grid_labels,
    read_rows,
)
from geotune.bench.suite import Search, Suite, read_suite
from geotune.errors import GeotuneError, RecipeError
from geotune.training.lock import exclusive_lock
from geotune.training.run_dir import RunDir
from geotune.utils.atomic import write_atomically
from geotune.utils.code_hash import training_code
from geotune.utils.text import pluralize, suggest

PAGE = "bench.html"


@dataclass(frozen=True)
class SuiteResult:
    """The results of a suite.

    Attributes:
        folder: the folder of the suite, with its rows, tables and page.
        rows: the rows of all runs.
        tables: a `ComparisonTable` per context.
        published: a `PublishedTable` for each published table.
        suite: the validated suite.
    """

    folder: Path
    rows: list[Row]
    tables: list[Any]
    published: list[Any]
    suite: Suite


def bench(
    path: Path,
    *,
    workers: int | None = None,
    ray: str | None = None,
    table_only: bool = False,
    only: Sequence[str] = (),
    on_message: Callable[[str], None] = lambda text: None,
    on_result: Callable[[str, str, int, int], None] = lambda run, what, done, total: None,
) -> SuiteResult:
    """Run the unfinished runs of a suite and write its tables and page.

    Args:
        path: the suite file, or a folder with a `suite.yaml`.
        workers: parallel runs; by default as in the suite, on a cluster one per CPU.
        ray: address of a Ray cluster.
        table_only: run nothing; compare the existing rows.
        only: patterns of names of runs, such as `ships/est-*`, which are run; by default all. The
            tables have the other runs that are finished too, except with `table_only`.
        on_message: called with messages for the user.
        on_result: called after each run with its name, its status, finished and total runs.

    Raises `RecipeError` and `GeotuneError` for an invalid suite before the first run.
    """
    path = path / "suite.yaml" if path.is_dir() else path
    suite = read_suite(path)
    folder = suite.folder or Path("runs/bench") / path.stem
    every, notes = expand(suite)
    specs = _select(every, only)
    for note in notes:
        on_message(f"note: {note}")
    published = [result for each in suite.published for result in read_external_results(each)]
    _check_compare(suite, every)
    _check_search(suite.searches(), every)
    check_tasks(suite, every)
    from geotune.bench.objectives import objectives_of  # slow: imports torch

    objectives, pages = objectives_of(suite, every)
    if not table_only:
        on_message(f"{pluralize(len(specs), 'run')} in {folder / 'runs'}, a line after each")
    if not table_only:
        _run(suite, folder, path, every, specs, objectives, workers, ray, on_result)
        specs = every
    rows = _existing_rows(folder, specs)
    from geotune.bench.analysis import compare
    from geotune.bench.combined_tables import combine_tables, planned_methods
    from geotune.bench.comparison_tables import as_csv, as_latex, as_markdown
    from geotune.bench.disagreements import find_disagreements
    from geotune.bench.html import PageContext, render
    from geotune.bench.pareto_plots import pareto_plots, write_plots
    from geotune.bench.published_tables import as_markdown as published_as_markdown
    from geotune.bench.published_tables import published_tables
    from geotune.report.page import write_page

    on_message("computing tables")
    kept = [(spec, row) for spec, row in zip(specs, rows, strict=True) if row is not None]
    check_same_recipes(folder, kept, suite.searches())
    if not suite.compare.mixed_code:
        codes = {spec.name: row.get("code") for spec, row in kept if row["error"] is None}
        check_same_code(codes, folder / ROWS)
    tables = compare(specs, rows, objectives, suite.compare, folder)
    options = suite.compare
    combined = combine_tables(tables, planned_methods(every, options), options)
    for name, text in (
        ("table.md", as_markdown(tables, combined, options)),
        ("table.csv", as_csv(tables)),
        ("table.tex", as_latex(tables, options)),
    ):
        write_atomically(folder / name, text.encode())
    beside = published_tables(specs, rows, objectives, published, folder, options.folds)
    if beside:
        write_atomically(folder / "published.md", published_as_markdown(beside).encode())
    if suite.leaderboard is not None:
        for note in write_submission(suite, specs, rows, folder / "leaderboard"):
            on_message(f"note: {note}")
    on_message("drawing plots")
    plots = [pareto_plots(table, number) for number, table in enumerate(tables)]
    write_plots(folder / "figures", tables, plots)
    disagreements = [
        differing
        for table in tables
        if (differing := find_disagreements(table, folder)) is not None
    ]
    devices = dict.fromkeys(row["cost"]["device"] for _, row in kept if row["error"] is None)
    page = PageContext(
        path.stem,
        tables,
        combined,
        plots,
        options,
        pages,
        disagreements,
        [result for result in published if result.regions == "all"],
        notes,
        ", ".join(devices),
    )
    write_page(folder / PAGE, render(page))
    return SuiteResult(folder, [row for _, row in kept], tables, beside, suite)


def _select(specs: list[RunSpec], only: Sequence[str]) -> list[RunSpec]:
    """The runs whose names match one of the patterns."""
    for pattern in only:
        if not any(fnmatchcase(spec.name, pattern) for spec in specs):
            raise RecipeError(
                f"no run matches {pattern!r}; names are such as {specs[0].name}",
                code="suite-invalid",
            )
    return [spec for spec in specs if not only or any(fnmatchcase(spec.name, p) for p in only)]


def _run(
    suite: Suite,
    folder: Path,
    path: Path,
    every: Sequence[RunSpec],
    specs: Sequence[RunSpec],
    objectives: Any,
    workers: int | None,
    ray: str | None,
    on_result: Callable[[str, str, int, int], None],
) -> None:
    from geotune.bench.local_executor import LocalExecutor
    from geotune.bench.runner import Execution, Executor

    num_workers = workers or suite.workers
    executor: Executor
    if ray is None:
        executor = LocalExecutor()
    else:
        from geotune.bench.ray_executor import RayExecutor

        executor = RayExecutor(ray)
        num_workers = workers or executor.processors
    with exclusive_lock(folder, key="folder"):
        names = {spec.name for spec in every}
        earlier = [row for row in read_rows(folder / ROWS) if row["run"] in names]
        _check_earlier(suite, folder, every, specs, earlier)
        write_atomically(folder / "suite.yaml", path.read_bytes())
        Execution(
            folder, executor, num_workers, objectives, on_result, suite.searches(), earlier
        ).run(specs)


def _check_earlier(
    suite: Suite,
    folder: Path,
    every: Sequence[RunSpec],
    specs: Sequence[RunSpec],
    earlier: Sequence[Row],
) -> None:
    """Raise `GeotuneError`, before any training, if results would not belong together.

    Code is compared with that of the finished runs and trials, whether or not they have a row.
    """
    from geotune.bench.runner import is_trained

    selected = {spec.name for spec in specs}
    by_name = {row["run"]: row for row in earlier}
    others = [
        (spec, by_name[spec.name])
        for spec in every
        if spec.name in by_name and spec.name not in selected
    ]
    searches = suite.searches()
    check_same_recipes(folder, others, searches)
    if suite.compare.mixed_code:
        return
    codes = {spec.name: row.get("code") for spec, row in others if row["error"] is None}
    found = {spec.name: _code(folder / RUNS / spec.name) for spec in specs}
    groups = {folder_name(spec.group): spec for spec in specs if is_trained(spec)}
    for group, spec in groups.items():  # seeds share a search
        search = searches.get(spec.labels["recipe"])
        for number in range(0 if search is None else search.trials):
            name = f"{TRIALS}/{group}/{number}"
            found[name] = _code(folder / name)
    codes |= {name: code for name, code in found.items() if code is not None}
    check_same_code(codes, folder / ROWS, training_code() if None in found.values() else None)


def _code(run: Path) -> str | None:
    """The code that trained a run, `unknown code` of an old one; None if it is not finished."""
    folder = RunDir(run)
    if not folder.has_summary:
        return None
    return folder.read_json("run").get("code") or "unknown code"


def _existing_rows(folder: Path, specs: Sequence[RunSpec]) -> list[Row | None]:
    """The rows of an earlier start; None for runs without one."""
    earlier = {row["run"]: row for row in read_rows(folder / ROWS)}
    rows = [
        earlier[spec.name] | grid_labels(spec) if spec.name in earlier else None for spec in specs
    ]
    if not any(rows):
        raise GeotuneError(
            f"{folder / ROWS}: no results of this suite; run it without --table-only first",
            code="suite-results-missing",
            file=folder / ROWS,
        )
    return rows


def _check_compare(suite: Suite, specs: Sequence[RunSpec]) -> None:
    for key in ("over", "folds"):
        if specs[0].axis in getattr(suite.compare, key):
            raise RecipeError(
                f"compare.{key}: {specs[0].axis} is the compared axis; "
                f"remove it from compare.{key}",
                code="suite-invalid",
                key=f"compare.{key}",
            )
    options = suite.compare
    methods = dict.fromkeys(spec.method for spec in specs)
    named = [("primary", name) for name in options.primary]
    for key, name in [*named, *([] if options.to is None else [("to", options.to)])]:
        if name not in methods:
            raise RecipeError(
                f"compare.{key}: {name!r} is not a method of this suite; {suggest(name, methods)}",
                code="suite-invalid",
                key=f"compare.{key}",
            )
    if options.primary and len(suite.seeds) < 2 and not options.over:
        raise RecipeError(
            f"compare.primary: a verdict needs two or more seeds, found {suite.seeds}; add seeds, "
            "or remove compare.primary",
            code="suite-invalid",
            key="seeds",
        )


def _check_search(searches: Mapping[str, Search], specs: Sequence[RunSpec]) -> None:
    from geotune.bench.hparam_search import load_optuna, trial_of

    if any(not search.values for search in searches.values()):
        load_optuna()
    for spec in {str(spec.group): spec for spec in specs if searches}.values():
        search = searches[spec.labels["recipe"]]
        if getattr(getattr(spec.recipe.data, "split", None), "allow_overlap", False):
            raise RecipeError(
                f"search for {search.key}: {spec.name}: data.split.allow_overlap is true, so "
                "scenes of the test split may be in the validation split, which chooses the value; "
                "remove allow_overlap, or search",
                code="suite-invalid",
                key="data.split.allow_overlap",
            )
        try:
            for value in search.bounds:
                trial_of(search, spec, value)
        except RecipeError as error:
            raise RecipeError(
                f"search for {search.key}: {spec.name}: {error}",
                code=error.code,
                key=error.key,
                file=error.file,
            ) from error
