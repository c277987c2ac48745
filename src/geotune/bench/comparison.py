"""What the runs of a suite say of its methods."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from geotune.bench.execute import RUNS
from geotune.bench.grid import Cell, Labels
from geotune.bench.rows import Row
from geotune.bench.search import Goal
from geotune.bench.statistics import (
    Difference,
    Estimate,
    difference,
    estimate,
    over_seeds,
    pareto,
)
from geotune.bench.suite import Compare
from geotune.build.model import build_task
from geotune.card import read_card
from geotune.recipe import parse_sections
from geotune.tasks.parts import Parts
from geotune.tasks.redraw import Floats, draw, of_units, redrawn, times
from geotune.training.windows import WindowParts

COSTS = (
    "predicted_bytes",
    "memory_bytes",
    "peak_bytes",
    "seconds_per_step",
    "seconds",
    "trained_parameters",
    "adapter_bytes",
    "joules",
)


@dataclass(frozen=True)
class Line:
    """A method within a context.

    Attributes:
        method: its label.
        runs: names of its runs that are done, and of those that failed the errors.
        figures: every metric of the test part.
        val: the metric that is judged by on the validation part, mean over seeds.
        regions: that metric by region, mean over seeds.
        against: the difference to the method compared with; None of itself.
        cost: medians over seeds by `COSTS`; None where nothing is known.
        search: what a search chose.
        frugal, fast: on the front of accuracy against memory, and against time.
    """

    method: str
    runs: list[str]
    errors: list[str]
    figures: dict[str, Estimate]
    val: float
    regions: dict[str, float]
    against: Difference | None
    cost: dict[str, float | None]
    search: Mapping[str, Any] | None
    frugal: bool = False
    fast: bool = False


@dataclass(frozen=True)
class Table:
    """Methods within a context, such as a recipe and a share of its training data."""

    context: Labels
    goal: Goal
    reference: str
    units: int
    lines: list[Line] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The context in words."""
        recipe, *others = self.context.items()
        return ", ".join([str(recipe[1]), *(f"{axis} {label}" for axis, label in others)])

    @property
    def recipe(self) -> str:
        """Its recipe's name."""
        return str(self.context["recipe"])


@dataclass(frozen=True)
class _Runs:
    """Runs of one method: cells that are done, their rows, and metrics on drawn windows."""

    cells: list[Cell]
    rows: list[Row]
    redrawn: dict[str, Floats]
    drawn: Any
    errors: list[str]


def compare(
    cells: Sequence[Cell],
    rows: Sequence[Row],
    goals: Mapping[str, Goal],
    how: Compare,
    folder: Path,
) -> list[Table]:
    """A table for each context, in the order of the cells."""
    contexts: dict[tuple[Any, ...], list[tuple[Cell, Row]]] = {}
    for cell, row in zip(cells, rows, strict=True):
        contexts.setdefault(tuple(cell.context.items()), []).append((cell, row))
    return [
        _table(each, goals[each[0][0].labels["recipe"]], how, folder) for each in contexts.values()
    ]


def _table(pairs: Sequence[tuple[Cell, Row]], goal: Goal, how: Compare, folder: Path) -> Table:
    by_method: dict[str, list[tuple[Cell, Row]]] = {}
    for cell, row in pairs:
        by_method.setdefault(cell.method, []).append((cell, row))
    draws = _Draws(how)
    runs = {name: _runs(each, how, folder, draws) for name, each in by_method.items()}
    reference = how.to if how.to in runs else "full" if "full" in runs else next(iter(runs))
    lines = [_line(name, its, runs[reference], goal, how) for name, its in runs.items()]
    sign = -1 if goal.lower else 1
    gains = [sign * _mean(line, goal) for line in lines]
    fronts = [
        pareto([_known(line.cost[cost]) for line in lines], gains)
        for cost in ("memory_bytes", "seconds_per_step")
    ]
    marked = [
        replace(line, frugal=frugal, fast=fast)
        for line, frugal, fast in zip(lines, *fronts, strict=True)
    ]
    return Table(pairs[0][0].context, goal, reference, draws.units, marked)


def _mean(line: Line, goal: Goal) -> float:
    return line.figures[goal.metric].mean if goal.metric in line.figures else math.nan


def _known(value: float | None) -> float:
    return math.nan if value is None else value


class _Draws:
    """Draws that methods share: of the same windows and the same seeds the same ones."""

    def __init__(self, how: Compare) -> None:
        self.how = how
        self.units = 0
        self._often: dict[tuple[str, ...], Any] = {}
        self._seeds: dict[tuple[int, ...], Any] = {}

    def often(self, names: tuple[str, ...], units: int) -> Any:
        """How often each unit is drawn; `names` of the windows."""
        self.units = max(self.units, units)
        if names not in self._often:
            rng = np.random.default_rng([1, len(self._often)])
            self._often[names] = times(draw(units, self.how.draws, rng))
        return self._often[names]

    def seeds(self, seeds: tuple[int, ...]) -> Any:
        """Which seeds are drawn."""
        if seeds not in self._seeds:
            rng = np.random.default_rng([2, len(self._seeds)])
            self._seeds[seeds] = draw(len(seeds), self.how.draws, rng)
        return self._seeds[seeds]


def _runs(pairs: Sequence[tuple[Cell, Row]], how: Compare, folder: Path, draws: _Draws) -> _Runs:
    done = [(cell, row) for cell, row in pairs if row["error"] is None]
    errors = [f"{row['run']}: {row['error']}" for _, row in pairs if row["error"] is not None]
    figures: dict[str, list[Floats]] = {}
    for cell, _ in done:
        run = folder / RUNS / cell.name
        windows = WindowParts.load(run / "test_windows.npz")
        units: Sequence[Parts] = windows.parts
        if how.unit == "scene":
            units = of_units(windows.parts, windows.scenes)
        often = draws.often(windows.names, len(units))
        for name, values in redrawn(_figures_of(run), units, often).items():
            figures.setdefault(name, []).append(values)
    return _Runs(
        [cell for cell, _ in done],
        [row for _, row in done],
        {name: np.stack(values) for name, values in figures.items()},
        draws.seeds(tuple(cell.labels["seed"] for cell, _ in done)) if done else None,
        errors,
    )


def _figures_of(run: Path) -> Callable[[Parts], dict[str, float]]:
    """What makes figures of a run's windows; its card knows all that its task was told."""
    return build_task(parse_sections(read_card(run).sections, str(run))).metrics().of


def _line(name: str, its: _Runs, reference: _Runs, goal: Goal, how: Compare) -> Line:
    figures: dict[str, Estimate] = {}
    for metric, draws in its.redrawn.items():
        by_seed = np.array([_known(row["metrics"][metric]) for row in its.rows])
        figures[metric] = estimate(by_seed, over_seeds(draws, its.drawn), how.level)
    against = None
    if its is not reference and its.rows and reference.rows:
        sign = -1 if goal.lower else 1
        drawn = [over_seeds(each.redrawn[goal.metric], each.drawn) for each in (its, reference)]
        base = _over(reference.rows, goal.metric)
        mean = sign * (_over(its.rows, goal.metric) - base)
        margin = how.margin * abs(base)
        against = difference(mean, sign * (drawn[0] - drawn[1]), how.level, margin)
    names = list(dict.fromkeys(name for row in its.rows for name in row["regions"]))
    return Line(
        name,
        [row["run"] for row in its.rows],
        its.errors,
        figures,
        _nanmean([row["val"][goal.metric] for row in its.rows]),
        {
            region: _nanmean([row["regions"].get(region, {}).get(goal.metric) for row in its.rows])
            for region in names
        },
        against,
        {cost: _median([_cost(row["cost"], cost) for row in its.rows]) for cost in COSTS},
        its.rows[0]["search"] if its.rows else None,
    )


def _cost(cost: Mapping[str, Any], name: str) -> float | None:
    """One cost of a run; memory is that of tensors, which on a GPU is the peak itself."""
    if name == "memory_bytes":
        name = "peak_bytes" if cost["tensor_bytes"] is None else "tensor_bytes"
    value: float | None = cost[name]
    return value


def _over(rows: Sequence[Row], metric: str) -> float:
    return _nanmean([row["metrics"][metric] for row in rows])


def _nanmean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
