"""Accuracy against cost, each method a dot, the front of those that none beats marked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geotune.bench.analysis import ComparisonTable, MethodSummary
from geotune.bench.label_placement import name_dots
from geotune.report.plots import BLUE, ORANGE, Curve, as_file, new_axes, svg
from geotune.utils.atomic import write_atomically


@dataclass(frozen=True)
class Across:
    """A cost to lay accuracy against.

    Attributes:
        name: of its figure.
        cost: its name in a line.
        label: of the axis.
        unit: what of the cost is one of the axis.
        front: the line's mark of being on the front.
    """

    name: str
    cost: str
    label: str
    unit: float
    front: str


ACROSS = (
    Across("memory", "memory_bytes", "memory of a training step, GB", 1e9, "frugal"),
    Across("time", "seconds_per_step", "seconds a training step", 1.0, "fast"),
)


def fronts(table: ComparisonTable, number: int) -> dict[str, Curve]:
    """The figures of a table by name, the `number`-th on its page; none of what is not known."""
    made = {each.name: _front(table, each, f"front{number}{each.name}") for each in ACROSS}
    return {name: curve for name, curve in made.items() if curve is not None}


def write_figures(
    folder: Path, tables: Sequence[ComparisonTable], figures: Sequence[Mapping[str, Curve]]
) -> None:
    """The figures of each table as SVGs of their own, called by the table and the cost."""
    for table, curves in zip(tables, figures, strict=True):
        title = re.sub(r"[^\w.+-]+", "-", table.title).strip("-")
        for name, curve in curves.items():
            write_atomically(folder / f"{title}-{name}.svg", as_file(curve.svg).encode())


def _front(table: ComparisonTable, across: Across, prefix: str) -> Curve | None:
    metric = table.goal.metric
    lines = [line for line in table.lines if metric in line.figures and line.cost[across.cost]]
    if not lines:
        return None
    figure, axes = new_axes(across.label, metric, size=(6.2, 4.2))
    for line in lines:
        estimate = line.figures[metric]
        x, marked = _x(line, across), getattr(line, across.front)
        color = ORANGE if marked else BLUE
        if not math.isnan(estimate.low):
            reach, faint = [estimate.low, estimate.high], 0.5 if marked else 0.2
            axes.plot([x, x], reach, color=color, alpha=faint, linewidth=1.5)
        axes.plot([x], [estimate.mean], "o", color=color, markersize=7)
    front = sorted(
        (line for line in lines if getattr(line, across.front)), key=lambda line: _x(line, across)
    )
    points = [(_x(line, across), line.figures[metric].mean) for line in front]
    axes.plot(*zip(*points, strict=True), color=ORANGE, linewidth=1.5, linestyle=(0, (4, 3)))
    axes.margins(y=0.12)
    axes.set_xlim(0, 1.2 * max(_x(line, across) for line in lines))  # room for the names
    if table.goal.lower:
        axes.invert_yaxis()  # up is better in every figure
    lines.sort(key=lambda line: not getattr(line, across.front))  # the front's have the best places
    dots = [(_x(line, across), line.figures[metric].mean) for line in lines]
    name_dots(figure, axes, dots, [line.method for line in lines])
    names = ", ".join(line.method for line in front)
    title = f"{table.title}: {metric} against {across.label.rpartition(',')[0] or across.label}"
    words = f"{title}. No other method is as good for less than: {names}."
    return Curve(title, svg(figure, prefix), words)


def _x(line: MethodSummary, across: Across) -> float:
    value = line.cost[across.cost]
    assert value is not None
    return value / across.unit
