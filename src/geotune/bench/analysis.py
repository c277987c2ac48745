"""What the runs of a suite say of its methods."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from geotune.adapter_config import load_adapter_config
from geotune.bench.grid import Labels, RunSpec
from geotune.bench.hparam_search import Objective
from geotune.bench.results import Row
from geotune.bench.runner import RUNS
from geotune.bench.statistics import (
    Difference,
    Estimate,
    difference,
    draw_runs,
    estimate,
    over_runs,
    pareto,
)
from geotune.bench.suite import Compare
from geotune.config import parse_sections
from geotune.factory.build_model import build_task, with_val_threshold
from geotune.metrics.bootstrap import Floats, bootstrap, group_by, multiplicities, resample_indices
from geotune.metrics.state import MetricState
from geotune.training.run_dir import RunDir
from geotune.training.window_metrics import WindowMetrics

MOST_NAMED = 3
"""Of more regions not seen at once the number is said."""
MOST_REGIONS = 12
"""Of more there are no intervals: each takes as long as one of the whole, and none can be read."""

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
class MethodSummary:
    """A method within a context.

    Attributes:
        method: its label.
        runs: names of its runs that are done, and of those that failed the errors.
        figures: every metric of the test part.
        val: the metric that is judged by on the validation part, mean over its runs.
        regions: that metric by region of the test part; without an interval where there are many.
        gaps: by regions that were not seen in training: that metric there, less that in seen ones.
            The interval is the mean of the seeds' own, which are of windows alone. Before them the
            mean of all, where there are several, with an interval over the runs.
        against: the difference to the method compared with, on what both have done; None of itself.
        cost: medians over the runs by `COSTS`; None where nothing is known.
        search: what a search chose.
        frugal, fast: on the front of accuracy against memory, and against time.
    """

    method: str
    runs: list[str]
    errors: list[str]
    figures: dict[str, Estimate]
    val: float
    regions: dict[str, Estimate]
    gaps: dict[str, Estimate]
    against: Difference | None
    cost: dict[str, float | None]
    search: Mapping[str, Any] | None
    frugal: bool = False
    fast: bool = False


@dataclass(frozen=True)
class ComparisonTable:
    """Methods within a context, such as a recipe and a share of its training data."""

    context: Labels
    goal: Objective
    reference: str
    units: int
    lines: list[MethodSummary] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The context in words."""
        recipe, *others = self.context.items()
        return ", ".join([str(recipe[1]), *(f"{axis} {label}" for axis, label in others)])

    @property
    def recipe(self) -> str:
        """Its recipe's name."""
        return str(self.context["recipe"])


Repeat = tuple[tuple[Any, ...], int]
"""What a run repeats: its choices along the axes that are taken together, and its seed."""


@dataclass(frozen=True)
class _Runs:
    """Runs of one method: what they repeat, their rows, and figures of drawn windows.

    `bootstrap` has every metric `(S, draws)`, `regions` the one that is judged by in each region.
    """

    repeats: list[Repeat]
    rows: list[Row]
    redrawn: dict[str, Floats]
    regions: dict[str, Floats]
    errors: list[str]

    def of(self, repeats: Sequence[Repeat], metric: str) -> tuple[list[float], Floats]:
        """Its figures on the test part, and on drawn windows, in some of its runs."""
        chosen = [self.repeats.index(repeat) for repeat in repeats]
        found = [_known(self.rows[i]["metrics"][metric]) for i in chosen]
        return found, self.redrawn[metric][chosen]


def compare(
    cells: Sequence[RunSpec],
    rows: Sequence[Row],
    goals: Mapping[str, Objective],
    how: Compare,
    folder: Path,
) -> list[ComparisonTable]:
    """A table for each context, in the order of the cells."""
    contexts: dict[tuple[Any, ...], list[tuple[RunSpec, Row]]] = {}
    for cell, row in zip(cells, rows, strict=True):
        context = {axis: label for axis, label in cell.context.items() if axis not in how.over}
        contexts.setdefault(tuple(context.items()), []).append((cell, row))
    return [
        _table(dict(context), each, goals[dict(context)["recipe"]], how, folder)
        for context, each in contexts.items()
    ]


def _table(
    context: Labels,
    pairs: Sequence[tuple[RunSpec, Row]],
    goal: Objective,
    how: Compare,
    folder: Path,
) -> ComparisonTable:
    by_method: dict[str, list[tuple[RunSpec, Row]]] = {}
    for cell, row in pairs:
        by_method.setdefault(cell.method, []).append((cell, row))
    draws = _Draws(how)
    runs = {name: _runs(each, goal, how, folder, draws) for name, each in by_method.items()}
    reference = how.to if how.to in runs else "full" if "full" in runs else next(iter(runs))
    lines = [_line(name, its, runs[reference], goal, draws) for name, its in runs.items()]
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
    return ComparisonTable(context, goal, reference, draws.units, marked)


def _mean(line: MethodSummary, goal: Objective) -> float:
    return line.figures[goal.metric].mean if goal.metric in line.figures else math.nan


def _known(value: float | None) -> float:
    return math.nan if value is None else value


class _Draws:
    """Draws that methods share: of the same windows and the same runs the same ones."""

    def __init__(self, how: Compare) -> None:
        self.how = how
        self._units: dict[tuple[Any, ...], int] = {}
        self._often: dict[tuple[str, ...], Any] = {}
        self._runs: dict[tuple[Repeat, ...], Any] = {}

    @property
    def units(self) -> int:
        """How many units all test parts have together."""
        return sum(self._units.values())

    def tested(self, repeat: Repeat, units: int) -> None:
        """Of a run, that its test part has so many."""
        self._units[repeat[0]] = max(units, self._units.get(repeat[0], 0))

    def often(self, names: tuple[str, ...], units: int) -> Any:
        """How often each unit is drawn; `names` of the windows."""
        if names not in self._often:
            rng = np.random.default_rng([1, len(self._often)])
            self._often[names] = multiplicities(resample_indices(units, self.how.draws, rng))
        return self._often[names]

    def runs(self, repeats: Sequence[Repeat]) -> Any:
        """Which runs are drawn; those that are taken together by an axis, as wholes."""
        key = tuple(repeats)
        if key not in self._runs:
            rng = np.random.default_rng([2, len(self._runs)])
            groups = [choices or seed for choices, seed in repeats]
            self._runs[key] = draw_runs(groups, self.how.draws, rng)
        return self._runs[key]


def _runs(
    pairs: Sequence[tuple[RunSpec, Row]], goal: Objective, how: Compare, folder: Path, draws: _Draws
) -> _Runs:
    done = [(cell, row) for cell, row in pairs if row["error"] is None]
    errors = [f"{row['run']}: {row['error']}" for _, row in pairs if row["error"] is not None]
    figures: dict[str, list[Floats]] = {}
    regions: dict[str, list[Floats]] = {name: [] for name in _regions([row for _, row in done])}
    if len(regions) > MOST_REGIONS:
        regions = {}
    repeats = [_repeat(cell, how) for cell, _ in done]
    for (cell, _), repeat in zip(done, repeats, strict=True):
        run = folder / RUNS / cell.name
        windows, of = WindowMetrics.load(run / "test_windows.npz"), _figures_of(run)
        whole = _drawn(of, windows, range(len(windows.names)), how, draws)
        draws.tested(
            repeat, len(set(windows.scenes)) if how.unit == "scene" else len(windows.names)
        )
        for name, values in whole.items():
            figures.setdefault(name, []).append(values)
        for region, found in regions.items():
            its = [i for i, group in enumerate(windows.groups) if group == region]
            of_its = whole if len(its) == len(windows.names) else None
            if not its:
                of_its = {goal.metric: np.full(how.draws, math.nan)}
            found.append((of_its or _drawn(of, windows, its, how, draws))[goal.metric])
    return _Runs(
        repeats,
        [row for _, row in done],
        {name: np.stack(values) for name, values in figures.items()},
        {name: np.stack(values) for name, values in regions.items()},
        errors,
    )


def _repeat(cell: RunSpec, how: Compare) -> Repeat:
    return tuple(cell.labels[axis] for axis in how.over), cell.labels["seed"]


def _regions(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["regions"]))


def _drawn(
    of: Callable[[MetricState], dict[str, float]],
    windows: WindowMetrics,
    chosen: Sequence[int],
    how: Compare,
    draws: _Draws,
) -> dict[str, Floats]:
    """Figures of some windows of a run, or of their scenes, drawn anew."""
    units = [windows.states[i] for i in chosen]
    if how.unit == "scene":
        units = group_by(units, [windows.scenes[i] for i in chosen])
    often = draws.often(tuple(windows.names[i] for i in chosen), len(units))
    return bootstrap(of, units, often)


def _figures_of(run: Path) -> Callable[[MetricState], dict[str, float]]:
    """What makes figures of a run's windows; its card knows all that its task was told."""
    task = build_task(parse_sections(load_adapter_config(run).sections, str(run)))
    return with_val_threshold(task, RunDir(run).details("val")).metrics().compute_from


def _line(name: str, its: _Runs, reference: _Runs, goal: Objective, draws: _Draws) -> MethodSummary:
    def over(found: Sequence[Mapping[str, Any]], metric: str, redrawn: Floats | None) -> Estimate:
        by_run = np.array([_known(each.get(metric)) for each in found])
        drawn = np.empty(0) if redrawn is None else over_runs(redrawn, draws.runs(its.repeats))
        return estimate(by_run, drawn, draws.how.level)

    return MethodSummary(
        name,
        [row["run"] for row in its.rows],
        its.errors,
        {
            metric: over([row["metrics"] for row in its.rows], metric, redrawn)
            for metric, redrawn in its.redrawn.items()
        },
        _nanmean([row["val"][goal.metric] for row in its.rows]),
        {
            region: over(
                [row["regions"].get(region, {}) for row in its.rows],
                goal.metric,
                its.regions.get(region),
            )
            for region in _regions(its.rows)
        },
        _gaps(its, goal.metric, draws),
        None if its is reference else _against(its, reference, goal, draws),
        {cost: _median([_cost(row["cost"], cost) for row in its.rows]) for cost in COSTS},
        its.rows[0]["search"] if its.rows else None,
    )


def _against(its: _Runs, reference: _Runs, goal: Objective, draws: _Draws) -> Difference | None:
    """The difference in what both have done: of regions or seeds of one alone it would tell."""
    both = [repeat for repeat in reference.repeats if repeat in its.repeats]
    if not both:
        return None
    (mine, redrawn), (base, base_redrawn) = (
        runs.of(both, goal.metric) for runs in (its, reference)
    )
    sign = -1 if goal.lower else 1
    drawn = draws.runs(both)
    return difference(
        sign * (_nanmean(mine) - _nanmean(base)),
        sign * (over_runs(redrawn, drawn) - over_runs(base_redrawn, drawn)),
        draws.how.level,
        draws.how.margin * abs(_nanmean(base)),
    )


def _gaps(its: _Runs, metric: str, draws: _Draws) -> dict[str, Estimate]:
    by_place: dict[str, list[tuple[float, float, float]]] = {}
    every = np.full(len(its.rows), math.nan)
    for i, gap in enumerate(row["gap"] for row in its.rows):
        if gap is None:
            continue
        unseen, seen = _known(gap["unseen"][metric]), _known(gap["seen"][metric])
        low, high = (_known(end) for end in gap["intervals"][metric])
        by_place.setdefault(_place(gap["unseen_regions"]), []).append((unseen - seen, low, high))
        every[i] = unseen - seen
    found = {}
    if len(by_place) > 1:
        same = np.repeat(every[:, None], draws.how.draws, axis=1)
        drawn = over_runs(same, draws.runs(its.repeats))
        found[f"mean of {len(by_place)}"] = estimate(every, drawn, draws.how.level)
    for place, figures in by_place.items():
        gaps, lows, highs = zip(*figures, strict=True)
        spread = statistics.stdev(gaps) if len(gaps) > 1 else math.nan
        mean = statistics.fmean
        found[place] = Estimate(mean(gaps), spread, mean(lows), mean(highs), len(gaps))
    return found


def _place(regions: Sequence[str]) -> str:
    return ", ".join(regions) if len(regions) <= MOST_NAMED else f"{len(regions)} regions"


def _cost(cost: Mapping[str, Any], name: str) -> float | None:
    """One cost of a run; memory is that of tensors, which on a GPU is the peak itself.

    A process holds much beside them: where a training was too short to see its tensors, their
    memory is not known.
    """
    if name == "memory_bytes":
        name = "tensor_bytes" if cost["memory_kind"] == "process memory" else "peak_bytes"
    value: float | None = cost[name]
    return value


def _nanmean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None and not math.isnan(value)]
    return statistics.fmean(known) if known else math.nan


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
