"""Published results beside those of a suite, in the layout of the publication's table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geotune.adapter_config import load_adapter_config
from geotune.bench.comparison_tables import markdown_table, mean_std
from geotune.bench.external_results import ExternalResult
from geotune.bench.grid import RunSpec
from geotune.bench.hparam_search import Objective
from geotune.bench.measured_runs import load_windows, pool_folds
from geotune.bench.results import RUNS, Row
from geotune.config import parse_sections
from geotune.factory.build_model import build_task, with_val_threshold
from geotune.metrics.state import MetricState
from geotune.report import number_format as fmt
from geotune.training.run_dir import RunDir

if TYPE_CHECKING:
    from rich.table import Table as RichTable


@dataclass(frozen=True)
class PublishedTable:
    """A publication's table with the results of a suite in it.

    Attributes:
        title: the source and the part of the test split.
        columns: names of the label columns, then `<recipe>` and `<recipe>, here` in turn.
        lines: cells, as text.
    """

    title: str
    columns: list[str]
    lines: list[list[str]]


def published_tables(
    specs: Sequence[RunSpec],
    rows: Sequence[Row | None],
    objectives: Mapping[str, Objective],
    published: Sequence[ExternalResult],
    folder: Path,
    folds: Sequence[str] = (),
) -> list[PublishedTable]:
    """A table for each source and part of the test split: a line per method and its labels.

    Labels that are the same in all lines are left out.
    Published results without a run in the suite are omitted; cells of unfinished runs are empty.
    Means and standard deviations are over the finished seeds, of which the `folds` are pooled.
    Runs that differ in another label, which the publication lacks, are shown apart.
    """
    results: dict[
        tuple[str, str, tuple[str, ...]], dict[tuple[str, ...], dict[str, ExternalResult]]
    ] = {}
    for result in published:
        if any(_same(spec, result) for spec in specs):
            table = results.setdefault((result.source, result.regions, tuple(result.labels)), {})
            key = (*result.labels.values(), result.method)
            table.setdefault(key, {})[result.recipe] = result
    tables = []
    for (source, regions, axes), lines in results.items():
        recipes = list(dict.fromkeys(recipe for line in lines.values() for recipe in line))
        cells = []
        for key, line in lines.items():
            row = list(key)
            for recipe in recipes:
                if recipe not in line:
                    row += [fmt.DASH, fmt.DASH]
                    continue
                metric = objectives[recipe].metric
                runs = {
                    spec.name: (spec, run if run and run["error"] is None else None)
                    for spec, run in zip(specs, rows, strict=True)
                    if _same(spec, line[recipe])
                }
                ours = _measured(runs.values(), line[recipe], metric, folder, folds)
                row += [_cell(line[recipe].value, line[recipe].spread), ours]
            cells.append(row)
        part = "" if regions == "all" else f", test regions {regions} in training"
        names = [name for recipe in recipes for name in (recipe, f"{recipe}, here")]
        labels = [*axes, "method"]
        shown = [
            i for i in range(len(labels)) if i == len(axes) or len({key[i] for key in lines}) > 1
        ]
        tables.append(
            PublishedTable(
                f"{source}{part}",
                [*(labels[i] for i in shown), *names],
                [[*(row[i] for i in shown), *row[len(labels) :]] for row in cells],
            )
        )
    return tables


def _same(spec: RunSpec, result: ExternalResult) -> bool:
    """Whether a run is one of a published result."""
    labels = {axis: str(label) for axis, label in spec.labels.items()}
    expected = {"recipe": result.recipe, spec.axis: result.method, **result.labels}
    return expected.items() <= labels.items()


def _measured(
    runs: Iterable[tuple[RunSpec, Row | None]],
    result: ExternalResult,
    metric: str,
    folder: Path,
    folds: Sequence[str],
) -> str:
    """Mean and standard deviation over the seeds, for each combination of the other labels.

    Runs without a row are not finished; a seed counts if all its folds are.
    """
    given = {"recipe", "seed", *result.labels, *folds}
    by_labels: dict[tuple[str, ...], dict[Any, list[tuple[Path, Row | None]]]] = {}
    for spec, row in runs:
        others = tuple(
            f"{axis} {label}"
            for axis, label in spec.labels.items()
            if axis not in given and axis != spec.axis
        )
        seeds = by_labels.setdefault(others, {})
        seeds.setdefault(spec.labels["seed"], []).append((folder / RUNS / spec.name, row))
    cells = {}
    for others, seeds in by_labels.items():
        values = [
            _value(finished, metric, result.regions)
            for each in seeds.values()
            if len(finished := [(path, row) for path, row in each if row is not None]) == len(each)
        ]
        if not values:
            continue
        spread = statistics.stdev(values) if len(values) > 1 else None
        cells[others] = _cell(statistics.fmean(values), spread)
    if len(cells) == 1:
        return next(iter(cells.values()))
    varying = [
        i for i in range(len(next(iter(cells), ()))) if len({others[i] for others in cells}) > 1
    ]
    return (
        "; ".join(
            f"{', '.join(others[i] for i in varying)}: {cell}" for others, cell in cells.items()
        )
        or fmt.DASH
    )


def _value(runs: Sequence[tuple[Path, Row]], metric: str, regions: str) -> float:
    """The metric of a run, or of pooled folds, on a part of its test split; NaN without it."""
    (run, row), *others = runs
    if others and regions != "all":
        return math.nan  # of folds, the regions that were seen differ
    if regions == "all":
        if others:
            folders = tuple(RunDir(path) for path, _ in runs)
            row = pool_folds([each for _, each in runs], folders, load_windows)
        value = row["metrics"][metric]
        return math.nan if value is None else float(value)
    unseen = set(row["gap"]["unseen_regions"]) if row["gap"] else set()
    windows = load_windows(RunDir(run))
    states = [
        state
        for state, group in zip(windows.states, windows.groups, strict=True)
        if (group in unseen) == (regions == "unseen")
    ]
    if not states:
        return math.nan
    task = build_task(parse_sections(load_adapter_config(run).sections, str(run)))
    metrics = with_val_threshold(task, RunDir(run).details("val")).metrics()
    return float(metrics.compute_from(MetricState.merge(states))[metric])


def _cell(value: float, spread: float | None) -> str:
    return mean_std(value, math.nan if spread is None else spread)


def as_markdown(tables: Sequence[PublishedTable]) -> str:
    """All tables as Markdown."""
    return "\n".join(
        f"## {table.title}\n\n{markdown_table([table.columns, *table.lines])}\n" for table in tables
    )


def for_terminal(table: PublishedTable) -> RichTable:
    """A rich table."""
    from rich.table import Table as RichTable

    rich_table = RichTable(title=table.title, title_justify="left", box=None, pad_edge=False)
    for column in table.columns:
        rich_table.add_column(column.replace("[", r"\["))
    for line in table.lines:
        rich_table.add_row(
            *(cell.replace("[", r"\[").replace(" ± ", "\N{NO-BREAK SPACE}± ") for cell in line)
        )
    return rich_table
