"""Published results beside those of a suite, in the layout of the publication's table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geotune.adapter_config import load_adapter_config
from geotune.bench.comparison_tables import mean_std
from geotune.bench.external_results import ExternalResult
from geotune.bench.grid import RunSpec
from geotune.bench.hparam_search import Objective
from geotune.bench.results import Row
from geotune.bench.runner import RUNS
from geotune.config import parse_sections
from geotune.factory.build_model import build_task, with_val_threshold
from geotune.metrics.state import MetricState
from geotune.report import number_format as fmt
from geotune.training.run_dir import RunDir
from geotune.training.window_metrics import WindowMetrics

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
) -> list[PublishedTable]:
    """A table for each source and part of the test split: a line per method and its labels.

    Labels that are the same in all lines are left out.
    Published results without a run in the suite are omitted; cells of unfinished runs are empty.
    Means and standard deviations are over the finished seeds.
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
                values = [
                    _value(folder / RUNS / spec.name, run, metric, regions)
                    for spec, run in zip(specs, rows, strict=True)
                    if run is not None and run["error"] is None and _same(spec, line[recipe])
                ]
                row += [_cell(line[recipe].value, line[recipe].spread), _measured(values)]
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


def _value(run: Path, row: Row, metric: str, regions: str) -> float:
    """The metric of a run on a part of its test split; NaN without such windows."""
    if regions == "all":
        value = row["metrics"][metric]
        return math.nan if value is None else float(value)
    unseen = set(row["gap"]["unseen_regions"]) if row["gap"] else set()
    windows = WindowMetrics.load(run / "test_windows.npz")
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


def _measured(values: Sequence[float]) -> str:
    if not values:
        return fmt.DASH
    return _cell(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None)


def _cell(value: float, spread: float | None) -> str:
    return mean_std(value, math.nan if spread is None else spread)


def as_markdown(tables: Sequence[PublishedTable]) -> str:
    """All tables as Markdown."""
    blocks = []
    for table in tables:
        rule = ["---"] * len(table.columns)
        lines = [f"| {' | '.join(line)} |" for line in (table.columns, rule, *table.lines)]
        blocks.append("\n".join([f"## {table.title}", "", *lines, ""]))
    return "\n".join(blocks)


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
