"""Render a comparison as one self-contained HTML file."""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib.resources import files
from typing import Any, get_args

from markupsafe import Markup

import geotune
from geotune.bench.analysis import ComparisonTable, MethodSummary
from geotune.bench.combined_tables import CombinedTable
from geotune.bench.comparison_tables import (
    CHOSEN_ON,
    COLUMNS,
    cells,
    choices,
    combined_cells,
    combined_notes,
    combined_title,
    covers,
    csv_value,
    gap_text,
    header,
    interval,
    mean_std,
    notes,
    number,
    other_metrics,
    signed,
    trials_note,
)
from geotune.bench.disagreements import Disagreements
from geotune.bench.external_results import ExternalResult
from geotune.bench.glossary import GLOSSARY
from geotune.bench.statistics import Difference, Estimate, Verdict
from geotune.bench.suite import Compare
from geotune.report import number_format as fmt
from geotune.report.images import png
from geotune.report.page import new_environment, page_style
from geotune.report.plots import Curve
from geotune.report.tasks.base import TaskPage
from geotune.utils.metric_names import metric_name
from geotune.utils.text import pluralize

SECOND_LINE = {2: 3, 4: 5, 7: 8, 9: 10, 11: 12}
"""Columns shown as a second line below another column, to save width."""

MAIN_COLUMNS = {i: SECOND_LINE.get(i) for i in range(len(COLUMNS)) if i not in SECOND_LINE.values()}

MAX_COLUMNS = 12
"""Wider tables of classes or regions are transposed and collapsed."""


@dataclass(frozen=True)
class PageContext:
    """The contents of a page.

    Attributes:
        name: the name of the suite.
        plots: the plots of each table, by name.
        options: how the methods were compared.
        pages: the page section of each recipe's task.
        notes: notes for the user.
        device: the devices of the runs.
    """

    name: str
    tables: Sequence[ComparisonTable]
    combined: Sequence[CombinedTable]
    plots: Sequence[Mapping[str, Curve]]
    options: Compare
    pages: Mapping[str, TaskPage]
    disagreements: Sequence[Disagreements]
    published: Sequence[ExternalResult]
    notes: Sequence[str]
    device: str


def render(page: PageContext) -> str:
    """Render the page as HTML."""
    script = _read("bench.js")
    tables, options = page.tables, page.options
    methods = dict.fromkeys(line.method for table in tables for line in table.lines)
    return (
        new_environment("geotune.bench")
        .get_template("bench.html.j2")
        .render(
            name=page.name,
            methods=len(methods),
            runs=sum(line.trainings for table in tables for line in table.lines),
            created=datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
            version=geotune.__version__,
            device=page.device,
            style=page_style(),
            own_style=Markup(_read("bench.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            errors=[text for table in tables for line in table.lines for text in line.errors],
            notes=page.notes,
            summary=[
                *(text for table in tables for text in summarize(table, options)),
                *map(_summarize_combined, page.combined),
            ],
            verdicts=list(get_args(Verdict)),
            recipes=list(dict.fromkeys(table.recipe for table in tables)),
            tables=[_table(table, options) for table in tables],
            combined=[
                (combined_title(table), combined_cells(table), combined_notes(table, options))
                for table in page.combined
            ],
            plots=[
                (table.recipe, curve, Markup(curve.svg))
                for table, curves in zip(tables, page.plots, strict=True)
                for curve in curves.values()
            ],
            other_metrics=[block for t in tables for block in _others(t)],
            classes=[
                block
                for t in tables
                for block in _classes(t, page.pages[t.recipe].per_class_metric)
            ],
            regions=[block for t in tables for block in _regions(t)],
            gaps=[block for t in tables for block in _gaps(t)],
            disagreements=[
                _windows(differing) for differing in page.disagreements if differing.windows
            ],
            published=[block for table in tables for block in _published(table, page.published)],
            chosen=options.chosen,
            chosen_on=f"{CHOSEN_ON} {trials_note(tables)}",
            searches=[(t.title, rows) for t in tables if (rows := choices(t))],
            words=dict.fromkeys(
                [*GLOSSARY, *(each for task in page.pages.values() for each in task.glossary)]
            ),
        )
    )


def summarize(table: ComparisonTable, options: Compare) -> list[str]:
    """A short summary of a table."""
    metric, readable = table.objective.metric, table.objective.name
    done = [line for line in table.lines if metric in line.metrics]
    if not done:
        return [f"{table.title}: no finished runs."]
    sign = -1 if table.objective.lower else 1
    best = max(done, key=lambda line: sign * line.metrics[metric].mean)
    estimate = best.metrics[metric]
    runs = pluralize(estimate.runs, "run") + (", so its spread is unknown" * (estimate.runs == 1))
    parts = [
        f"{table.title}: of {len(done)} methods, {best.method} has the best test {readable}, "
        f"{mean_std(estimate.mean, estimate.spread)} ({runs})."
    ]
    differences = {line.method: line.difference for line in done if line.difference is not None}
    if differences:
        parts.append(
            f"Compared with {table.reference}: {_verdicts(differences)}. {covers(table, options)}"
        )
    efficient = [line.method for line in done if line.pareto_memory]
    if efficient:
        parts.append(f"Pareto-optimal in {readable} and memory: {fmt.listing(efficient)}.")
    gaps = [
        f"{line.method} {gap_text(gap)}"
        for line in done
        if line is best or line.method == table.reference
        for gap in [*line.gaps.values()][:1]
    ]
    if gaps:
        parts.append(f"Regions without training scenes minus regions with: {', '.join(gaps)}.")
    return [" ".join(parts)]


def _verdicts(differences: Mapping[str, Difference]) -> str:
    """The methods by verdict, the best verdict first."""
    order = list(get_args(Verdict))
    by_verdict: dict[tuple[int, str], list[str]] = {}
    for method, each in differences.items():
        by_verdict.setdefault((order.index(each.verdict), each.reason), []).append(method)
    return "; ".join(
        f"{order[verdict]}{f' ({reason})' if reason else ''}: {fmt.listing(methods)}"
        for (verdict, reason), methods in sorted(by_verdict.items())
    )


def _summarize_combined(table: CombinedTable) -> str:
    verdicts = _verdicts(table.differences)
    return f"{combined_title(table)}, compared with {table.reference}: {verdicts}."


def _read(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _table(table: ComparisonTable, options: Compare) -> dict[str, Any]:
    names = header(table)
    return {
        "recipe": table.recipe,
        "title": table.title,
        "head": [(names[i], names[below] if below else "") for i, below in MAIN_COLUMNS.items()],
        "notes": notes(table, options),
        "lines": [
            {
                "method": line.method,
                "verdict": line.difference.verdict if line.difference else "",
                "cells": [
                    (texts[i], texts[below] if below else "", values[i])
                    for i, below in MAIN_COLUMNS.items()
                ],
            }
            for line in table.lines
            for texts, values in [(cells(table, line), _values(table, line))]
        ],
    }


def _values(table: ComparisonTable, line: MethodSummary) -> list[float | str]:
    """The sort keys of a method's row, by column."""
    estimate, difference, cost = (
        line.metrics.get(table.objective.metric),
        line.difference,
        line.cost,
    )
    return [
        line.method,
        len(line.runs),
        *((csv_value(estimate.mean), csv_value(estimate.low)) if estimate else ("", "")),
        *(
            (csv_value(difference.mean), csv_value(difference.low), str(difference))
            if difference
            else ("",) * 3
        ),
        *(
            csv_value(cost[name])
            for name in (
                "memory_bytes", "predicted_bytes", "seconds_per_step", "seconds",
                "trained_parameters", "adapter_bytes", "joules",
            )
        ),
    ]  # fmt: skip


def _others(table: ComparisonTable) -> list[dict[str, Any]]:
    lines = {
        line.method: {
            metric_name(name): line.metrics[name]
            for name in other_metrics(table)
            if name in line.metrics
        }
        for line in table.lines
    }
    return _block(table.recipe, table.title, lines)


def _classes(table: ComparisonTable, each: str | None) -> list[dict[str, Any]]:
    lines = {
        line.method: {
            name.removeprefix(f"{each}/"): estimate
            for name, estimate in line.metrics.items()
            if name.startswith(f"{each}/")
        }
        for line in table.lines
    }
    return _block(table.recipe, f"{table.title}: {metric_name(each or '')}", lines)


def _regions(table: ComparisonTable) -> list[dict[str, Any]]:
    """The metric by region; empty if the test split has a single region."""
    lines = {line.method: line.regions for line in table.lines}
    several = len({region for metrics in lines.values() for region in metrics}) > 1
    return _block(table.recipe, f"{table.title}: {table.objective.name}", lines) if several else []


def _gaps(table: ComparisonTable) -> list[dict[str, Any]]:
    lines = {line.method: line.gaps for line in table.lines}
    return _block(table.recipe, f"{table.title}: {table.objective.name}", lines, signs=True)


def _block(
    recipe: str, title: str, lines: Mapping[str, Mapping[str, Estimate]], *, signs: bool = False
) -> list[dict[str, Any]]:
    """A table of metrics by method and name; empty without names.

    With more than `MAX_COLUMNS` names it is transposed and collapsed.
    """
    names = list(dict.fromkeys(name for metrics in lines.values() for name in metrics))
    methods = [method for method, metrics in lines.items() if metrics]
    if not names:
        return []
    many = len(names) > MAX_COLUMNS
    rows, columns = (names, methods) if many else (methods, names)

    def estimate(row: str, column: str) -> Estimate | None:
        method, name = (column, row) if many else (row, column)
        return lines[method].get(name)

    return [
        {
            "recipe": recipe,
            "title": title,
            "many": many,
            "columns": columns,
            "lines": [
                (row, [_cell(estimate(row, column), signs) for column in columns]) for row in rows
            ],
        }
    ]


def _cell(estimate: Estimate | None, signs: bool) -> tuple[str, str, float | str]:
    """The text, the interval (if known) and the sort key of a metric."""
    if estimate is None:
        return fmt.DASH, "", ""
    interval_text = interval(estimate.low, estimate.high, signs=signs)
    mean = signed(estimate.mean) if signs else number(estimate.mean)
    return mean, "" if interval_text == fmt.DASH else interval_text, csv_value(estimate.mean)


def _windows(differing: Disagreements) -> dict[str, Any]:
    return {
        "recipe": differing.table.recipe,
        "title": differing.table.title + (", first fold" if differing.table.folds > 1 else ""),
        "methods": differing.methods,
        "legend": differing.legend,
        "windows": [
            (example, [(title, png(picture)) for title, picture in example.pictures.items()])
            for example in differing.windows
        ],
    }


def _published(table: ComparisonTable, published: Sequence[ExternalResult]) -> list[dict[str, Any]]:
    """The results of each publication next to those of the suite, by method."""
    measured = {
        line.method: mean_std(line.metrics[m].mean, line.metrics[m].spread)
        for line in table.lines
        for m in [table.objective.metric]
        if m in line.metrics
    }
    blocks = []
    for source in dict.fromkeys(estimate.source for estimate in published):
        reported = {
            estimate.method: mean_std(
                estimate.value, math.nan if estimate.spread is None else estimate.spread
            )
            for estimate in published
            if estimate.source == source
            and estimate.recipe == table.recipe
            and all(table.context.get(axis) == label for axis, label in estimate.labels.items())
        }
        if reported:
            lines = [
                (method, reported.get(method, fmt.DASH), measured.get(method, fmt.DASH))
                for method in dict.fromkeys([*reported, *measured])
            ]
            blocks.append(
                {"recipe": table.recipe, "title": table.title, "source": source, "lines": lines}
            )
    return blocks
