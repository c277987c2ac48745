"""A comparison as one HTML file that needs nothing else: no network, no other file."""

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
from geotune.bench.comparison_tables import (
    HEAD,
    between,
    cells,
    head,
    notes,
    number,
    others,
    plain,
    signed,
    with_spread,
)
from geotune.bench.disagreements import Disagreements
from geotune.bench.external_results import ExternalResult
from geotune.bench.statistics import Estimate, Verdict
from geotune.bench.suite import Compare
from geotune.report import number_format as fmt
from geotune.report.images import png
from geotune.report.page import new_environment, page_style
from geotune.report.plots import Curve
from geotune.report.tasks.base import TaskPage

BELOW = {2: 3, 4: 5, 7: 8, 9: 10, 11: 12}
"""Columns of a table that stand below another, by that: fewer fit on a narrow screen."""

SHOWN = {i: BELOW.get(i) for i in range(len(HEAD)) if i not in BELOW.values()}

MOST_COLUMNS = 12
"""Of a table of classes or regions."""

WORDS = (
    (
        "Method",
        "How a pretrained network is adapted to the task: trained in full, in a small part, or by "
        "a small network beside it.",
    ),
    (
        "frozen, unet_from_scratch",
        "Two yardsticks. With frozen the pretrained network stays as it is and only the decoder "
        "learns: a method that is no better has not used its freedom. unet_from_scratch has never "
        "seen another image: where it is as good, pretraining is worth nothing on this data.",
    ),
    (
        "Seed",
        "The start of all chance in a training. The same training from another seed comes out a "
        "little differently; several show by how much.",
    ),
    (
        "Interval",
        "Where the figure would lie if seeds and test windows were drawn anew. Windows of one "
        "scene resemble each other, so of another place less is known than the interval says.",
    ),
    (
        "Verdict",
        "Better: the whole interval of the difference is above zero. Not worse by more than the "
        "margin: all of it is above a loss so small that it counts as none. Worse: all of it is "
        "below zero. Undecided: the runs do not tell; more seeds or test data would.",
    ),
    (
        "Training, validation, test",
        "Methods learn from the first; the second chooses the best moment to stop, and what was "
        "searched; the third, of which all figures here are, is looked at only at the end.",
    ),
    (
        "Memory, predicted",
        "What the tensors of one training step take at the highest, measured while it ran; "
        "predicted is what geotune said before the training.",
    ),
    (
        "Time a step",
        "Of the fastest epoch, the one that other work on the machine held up least. Its "
        "validation is in it.",
    ),
    ("Trained", "How many numbers of the network the method changes or adds."),
    ("Adapter", "The file with what was trained: all that has to be kept for each task."),
    (
        "Energy",
        "What the machine's own counters say of the time of a run, with all else that ran there; a "
        "dash where it has none that can be read.",
    ),
)


@dataclass(frozen=True)
class PageContext:
    """What a page shows.

    Attributes:
        name: of the suite.
        figures: of each table, by name.
        how: differences were judged.
        pages: by recipe its task's part of a page.
        notes: what the user was told.
        device: on which it was run.
    """

    name: str
    tables: Sequence[ComparisonTable]
    figures: Sequence[Mapping[str, Curve]]
    how: Compare
    pages: Mapping[str, TaskPage]
    differing: Sequence[Disagreements]
    published: Sequence[ExternalResult]
    notes: Sequence[str]
    device: str


def render(content: PageContext) -> str:
    """The page as HTML."""
    script = _own("bench.js")
    tables, how = content.tables, content.how
    methods = dict.fromkeys(line.method for table in tables for line in table.lines)
    return (
        new_environment("geotune.bench")
        .get_template("bench.html.j2")
        .render(
            name=content.name,
            methods=len(methods),
            runs=len({run for table in tables for line in table.lines for run in line.runs}),
            created=datetime.now().astimezone().isoformat(sep=" ", timespec="minutes"),
            version=geotune.__version__,
            device=content.device,
            style=page_style(),
            own_style=Markup(_own("bench.css")),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
            errors=[text for table in tables for line in table.lines for text in line.errors],
            notes=content.notes,
            summary=[text for table in tables for text in sentences(table, how)],
            verdicts=list(get_args(Verdict)),
            recipes=list(dict.fromkeys(table.recipe for table in tables)),
            tables=[_table(table, how) for table in tables],
            figures=[
                (table.recipe, curve, Markup(curve.svg))
                for table, curves in zip(tables, content.figures, strict=True)
                for curve in curves.values()
            ],
            others=[block for t in tables for block in _others(t)],
            classes=[block for t in tables for block in _classes(t, content.pages[t.recipe].each)],
            regions=[block for t in tables for block in _regions(t)],
            gaps=[block for t in tables for block in _gaps(t)],
            differing=[_windows(found) for found in content.differing if found.windows],
            published=[block for table in tables for block in _beside(table, content.published)],
            searches=[
                (table.title, line.method, line.search)
                for table in tables
                for line in table.lines
                if line.search is not None
            ],
            words=dict.fromkeys(
                [*WORDS, *(each for page in content.pages.values() for each in page.words)]
            ),
        )
    )


def sentences(table: ComparisonTable, how: Compare) -> list[str]:
    """What a table says, for a person who reads nothing else."""
    metric = table.goal.metric
    done = [line for line in table.lines if metric in line.figures]
    if not done:
        return [f"{table.title}: no run is done."]
    sign = -1 if table.goal.lower else 1
    best = max(done, key=lambda line: sign * line.figures[metric].mean)
    figure = best.figures[metric]
    said = [
        f"{table.title}: of {len(done)} methods {best.method} has the best {metric} on test data, "
        f"{with_spread(figure.mean, figure.spread)} (from {figure.runs} "
        f"run{'' if figure.runs == 1 else 's'})."
    ]
    by_verdict: dict[str, list[str]] = {}
    for line in done:
        if line.against is not None:
            by_verdict.setdefault(line.against.verdict, []).append(line.method)
    margin = f"{100 * how.margin:g} %"
    words = [
        f"{verdict.replace('the margin', margin)}: {fmt.listing(by_verdict[verdict])}"
        for verdict in get_args(Verdict)
        if verdict in by_verdict
    ]
    if words:
        said.append(f"Compared with {table.reference}, {'; '.join(words)}.")
    frugal = [line.method for line in done if line.frugal]
    if frugal:
        said.append(f"No other method is as good in less memory than {fmt.listing(frugal)}.")
    lost = [
        f"{line.method} {signed(gap.mean)} ({between(gap.low, gap.high, signs=True)})"
        for line in done
        if line is best or line.method == table.reference
        for gap in [*line.gaps.values()][:1]
    ]
    if lost:
        said.append(f"In regions not seen, beside those of the training: {', '.join(lost)}.")
    return [" ".join(said)]


def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _table(table: ComparisonTable, how: Compare) -> dict[str, Any]:
    names = head(table)
    return {
        "recipe": table.recipe,
        "title": table.title,
        "head": [(names[i], names[below] if below else "") for i, below in SHOWN.items()],
        "notes": notes(table, how),
        "lines": [
            {
                "method": line.method,
                "verdict": line.against.verdict if line.against else "",
                "cells": [
                    (texts[i], texts[below] if below else "", values[i])
                    for i, below in SHOWN.items()
                ],
            }
            for line in table.lines
            for texts, values in [(cells(table, line), _values(table, line))]
        ],
    }


def _values(table: ComparisonTable, line: MethodSummary) -> list[float | str]:
    """What a line is sorted by, column for column."""
    figure, against, cost = line.figures.get(table.goal.metric), line.against, line.cost
    return [
        line.method,
        len(line.runs),
        *((plain(figure.mean), plain(figure.low)) if figure else ("", "")),
        *((plain(against.mean), plain(against.low), against.verdict) if against else ("",) * 3),
        *(
            plain(cost[name])
            for name in (
                "memory_bytes", "predicted_bytes", "seconds_per_step", "seconds",
                "trained_parameters", "adapter_bytes", "joules",
            )
        ),
    ]  # fmt: skip


def _others(table: ComparisonTable) -> list[dict[str, Any]]:
    lines = {
        line.method: {name: line.figures[name] for name in others(table) if name in line.figures}
        for line in table.lines
    }
    return _block(table.recipe, table.title, lines)


def _classes(table: ComparisonTable, each: str | None) -> list[dict[str, Any]]:
    lines = {
        line.method: {
            name.removeprefix(f"{each}/"): figure
            for name, figure in line.figures.items()
            if name.startswith(f"{each}/")
        }
        for line in table.lines
    }
    return _block(table.recipe, f"{table.title}: {each}", lines)


def _regions(table: ComparisonTable) -> list[dict[str, Any]]:
    """None where the whole test part is one region."""
    lines = {line.method: line.regions for line in table.lines}
    several = len({region for figures in lines.values() for region in figures}) > 1
    return _block(table.recipe, f"{table.title}: {table.goal.metric}", lines) if several else []


def _gaps(table: ComparisonTable) -> list[dict[str, Any]]:
    lines = {line.method: line.gaps for line in table.lines}
    return _block(table.recipe, f"{table.title}: {table.goal.metric}", lines, signs=True)


def _block(
    recipe: str,
    title: str,
    lines: Mapping[str, Mapping[str, Estimate]],
    *,
    signs: bool = False,
) -> list[dict[str, Any]]:
    """A table of figures by method and by name; none where there are no names.

    More names than there is room for stand one below the other, and are folded.
    """
    names = list(dict.fromkeys(name for figures in lines.values() for name in figures))
    methods = [method for method, figures in lines.items() if figures]
    if not names:
        return []
    many = len(names) > MOST_COLUMNS
    rows, columns = (names, methods) if many else (methods, names)

    def figure(row: str, column: str) -> Estimate | None:
        method, name = (column, row) if many else (row, column)
        return lines[method].get(name)

    return [
        {
            "recipe": recipe,
            "title": title,
            "many": many,
            "columns": columns,
            "lines": [
                (row, [_cell(figure(row, column), signs) for column in columns]) for row in rows
            ],
        }
    ]


def _cell(figure: Estimate | None, signs: bool) -> tuple[str, str, float | str]:
    """A figure, its interval where there is one, and what it is sorted by."""
    if figure is None:
        return fmt.DASH, "", ""
    interval = between(figure.low, figure.high, signs=signs)
    mean = signed(figure.mean) if signs else number(figure.mean)
    return mean, "" if interval == fmt.DASH else interval, plain(figure.mean)


def _windows(found: Disagreements) -> dict[str, Any]:
    return {
        "recipe": found.table.recipe,
        "title": found.table.title,
        "methods": found.methods,
        "legend": found.legend,
        "windows": [
            (example, [(title, png(picture)) for title, picture in example.pictures.items()])
            for example in found.windows
        ],
    }


def _beside(table: ComparisonTable, published: Sequence[ExternalResult]) -> list[dict[str, Any]]:
    """The numbers of each source beside ours, by method."""
    ours = {
        line.method: with_spread(line.figures[m].mean, line.figures[m].spread)
        for line in table.lines
        for m in [table.goal.metric]
        if m in line.figures
    }
    blocks = []
    for source in dict.fromkeys(figure.source for figure in published):
        theirs = {
            figure.method: with_spread(
                figure.value, math.nan if figure.spread is None else figure.spread
            )
            for figure in published
            if figure.source == source
            and figure.recipe == table.recipe
            and all(table.context.get(axis) == label for axis, label in figure.labels.items())
        }
        if theirs:
            lines = [
                (method, theirs.get(method, fmt.DASH), ours.get(method, fmt.DASH))
                for method in dict.fromkeys([*theirs, *ours])
            ]
            blocks.append(
                {"recipe": table.recipe, "title": table.title, "source": source, "lines": lines}
            )
    return blocks
