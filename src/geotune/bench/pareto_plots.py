"""Plots of accuracy against cost with the Pareto front, one point per method."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from geotune.bench.analysis import ComparisonTable, MethodSummary
from geotune.bench.label_placement import label_points
from geotune.report.plots import BLUE, ORANGE, Curve, as_file, new_axes, svg
from geotune.utils.atomic import write_atomically


@dataclass(frozen=True)
class CostAxis:
    """The cost axis of a plot.

    Attributes:
        name: of the plot.
        cost: the key in `MethodSummary.cost`.
        label: of the axis.
        unit: the divisor from the cost to the axis unit.
        front: the attribute of `MethodSummary` that marks Pareto-optimal methods.
    """

    name: str
    cost: str
    label: str
    unit: float
    front: str


COST_AXES = (
    CostAxis("memory", "memory_bytes", "memory of a training step, GB", 1e9, "pareto_memory"),
    CostAxis("time", "seconds_per_step", "seconds per training step", 1.0, "pareto_time"),
)


def pareto_plots(table: ComparisonTable, number: int) -> dict[str, Curve]:
    """The plots of a table by name; costs that are unknown are skipped."""
    plots = {each.name: _front(table, each, f"front{number}{each.name}") for each in COST_AXES}
    return {name: curve for name, curve in plots.items() if curve is not None}


def write_plots(
    folder: Path, tables: Sequence[ComparisonTable], plots: Sequence[Mapping[str, Curve]]
) -> None:
    """Write each plot as an SVG file, named after the table and the cost."""
    for table, curves in zip(tables, plots, strict=True):
        title = re.sub(r"[^\w.+-]+", "-", table.title).strip("-")
        for name, curve in curves.items():
            write_atomically(folder / f"{title}-{name}.svg", as_file(curve.svg).encode())


def _front(table: ComparisonTable, axis: CostAxis, prefix: str) -> Curve | None:
    metric = table.objective.metric
    lines = [line for line in table.lines if metric in line.metrics and line.cost[axis.cost]]
    if not lines:
        return None
    figure, axes = new_axes(axis.label, table.objective.name, size=(6.2, 4.2))
    for line in lines:
        estimate = line.metrics[metric]
        x, on_front = _cost(line, axis), getattr(line, axis.front)
        color = ORANGE if on_front else BLUE
        if not math.isnan(estimate.low):
            interval, alpha = [estimate.low, estimate.high], 0.5 if on_front else 0.2
            axes.plot([x, x], interval, color=color, alpha=alpha, linewidth=1.5)
        axes.plot([x], [estimate.mean], "o", color=color, markersize=7)
    front = sorted(
        (line for line in lines if getattr(line, axis.front)), key=lambda line: _cost(line, axis)
    )
    points = [(_cost(line, axis), line.metrics[metric].mean) for line in front]
    axes.plot(*zip(*points, strict=True), color=ORANGE, linewidth=1.5, linestyle=(0, (4, 3)))
    axes.margins(y=0.12)
    axes.set_xlim(0, 1.2 * max(_cost(line, axis) for line in lines))  # space for the labels
    if table.objective.lower:
        axes.invert_yaxis()  # up is better in every plot
    lines.sort(key=lambda line: not getattr(line, axis.front))  # place labels of the front first
    dots = [(_cost(line, axis), line.metrics[metric].mean) for line in lines]
    label_points(figure, axes, dots, [line.method for line in lines])
    names = ", ".join(line.method for line in front)
    cost = axis.label.rpartition(",")[0] or axis.label
    title = f"{table.title}: {table.objective.name} against {cost}"
    alt_text = f"{title}. Pareto-optimal: {names}."
    return Curve(title, svg(figure, prefix), alt_text)


def _cost(line: MethodSummary, axis: CostAxis) -> float:
    value = line.cost[axis.cost]
    assert value is not None
    return value / axis.unit
