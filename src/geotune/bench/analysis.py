"""Summarise the runs of a suite by method: metrics, differences with intervals, costs."""

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
    mean_over_runs,
    pareto,
)
from geotune.bench.suite import Compare
from geotune.config import parse_sections
from geotune.factory.build_model import build_task, with_val_threshold
from geotune.metrics.bootstrap import Floats, bootstrap, group_by, multiplicities, resample_indices
from geotune.metrics.state import MetricState
from geotune.training.run_dir import RunDir
from geotune.training.window_metrics import WindowMetrics

MAX_NAMED_REGIONS = 3
"""More held-out regions than this are shown by their number."""
MAX_REGIONS = 12
"""With more regions than this, their intervals are omitted, as each costs a full bootstrap."""

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
    """The results of a method within a context.

    Attributes:
        method: its label.
        runs: names of its finished runs.
        errors: messages of its failed runs.
        metrics: every metric of the test split.
        val: the main metric on the validation split, mean over the runs.
        regions: the main metric by region of the test split; no intervals if there are many.
        gaps: the main metric in regions without training scenes minus that in regions with them,
            by held-out regions; intervals are means of the seeds' intervals over windows. With
            several, their mean comes first, with an interval over the runs.
        difference: the difference to the reference on the runs that both finished; None for the
            reference.
        cost: medians over the runs by `COSTS`; None if unknown.
        search: the result of the search.
        pareto_memory, pareto_time: whether it is Pareto-optimal in the metric and this cost.
    """

    method: str
    runs: list[str]
    errors: list[str]
    metrics: dict[str, Estimate]
    val: float
    regions: dict[str, Estimate]
    gaps: dict[str, Estimate]
    difference: Difference | None
    cost: dict[str, float | None]
    search: Mapping[str, Any] | None
    pareto_memory: bool = False
    pareto_time: bool = False


@dataclass(frozen=True)
class ComparisonTable:
    """The methods of one context, such as a recipe and a fraction of its training data."""

    context: Labels
    objective: Objective
    reference: str
    units: int
    lines: list[MethodSummary] = field(default_factory=list)

    @property
    def title(self) -> str:
        """The context as a title."""
        recipe, *others = self.context.items()
        return ", ".join([str(recipe[1]), *(f"{axis} {label}" for axis, label in others)])

    @property
    def recipe(self) -> str:
        """The name of its recipe."""
        return str(self.context["recipe"])


Repeat = tuple[tuple[Any, ...], int]
"""The replicate of a run: its labels on the axes of `compare.over`, and its seed."""


@dataclass(frozen=True)
class _Runs:
    """The runs of one method: replicates, rows, and bootstrapped metrics `(runs, draws)`.

    `bootstrapped` has every metric, `regions` the main metric in each region.
    """

    repeats: list[Repeat]
    rows: list[Row]
    bootstrapped: dict[str, Floats]
    regions: dict[str, Floats]
    errors: list[str]

    def select(self, repeats: Sequence[Repeat], metric: str) -> tuple[list[float], Floats]:
        """A metric of some runs on the test split, and its bootstrap samples."""
        indices = [self.repeats.index(repeat) for repeat in repeats]
        values = [_known(self.rows[i]["metrics"][metric]) for i in indices]
        return values, self.bootstrapped[metric][indices]


def compare(
    specs: Sequence[RunSpec],
    rows: Sequence[Row],
    objectives: Mapping[str, Objective],
    options: Compare,
    folder: Path,
) -> list[ComparisonTable]:
    """One table per context, in the order of the runs."""
    contexts: dict[tuple[Any, ...], list[tuple[RunSpec, Row]]] = {}
    for spec, row in zip(specs, rows, strict=True):
        context = {axis: label for axis, label in spec.context.items() if axis not in options.over}
        contexts.setdefault(tuple(context.items()), []).append((spec, row))
    return [
        _table(dict(context), each, objectives[dict(context)["recipe"]], options, folder)
        for context, each in contexts.items()
    ]


def _table(
    context: Labels,
    pairs: Sequence[tuple[RunSpec, Row]],
    objective: Objective,
    options: Compare,
    folder: Path,
) -> ComparisonTable:
    by_method: dict[str, list[tuple[RunSpec, Row]]] = {}
    for spec, row in pairs:
        by_method.setdefault(spec.method, []).append((spec, row))
    draws = _Draws(options)
    runs = {
        name: _runs(each, objective, options, folder, draws) for name, each in by_method.items()
    }
    reference = options.to if options.to in runs else "full" if "full" in runs else next(iter(runs))
    lines = [_line(name, each, runs[reference], objective, draws) for name, each in runs.items()]
    sign = -1 if objective.lower else 1
    scores = [sign * _mean(line, objective) for line in lines]
    fronts = [
        pareto([_known(line.cost[cost]) for line in lines], scores)
        for cost in ("memory_bytes", "seconds_per_step")
    ]
    lines_with_fronts = [
        replace(line, pareto_memory=pareto_memory, pareto_time=pareto_time)
        for line, pareto_memory, pareto_time in zip(lines, *fronts, strict=True)
    ]
    return ComparisonTable(context, objective, reference, draws.units, lines_with_fronts)


def _mean(line: MethodSummary, objective: Objective) -> float:
    return line.metrics[objective.metric].mean if objective.metric in line.metrics else math.nan


def _known(value: float | None) -> float:
    return math.nan if value is None else value


class _Draws:
    """Bootstrap draws shared by the methods: equal windows and runs get equal draws."""

    def __init__(self, options: Compare) -> None:
        self.options = options
        self._units: dict[tuple[Any, ...], int] = {}
        self._unit_counts: dict[tuple[str, ...], Any] = {}
        self._runs: dict[tuple[Repeat, ...], Any] = {}

    @property
    def units(self) -> int:
        """Total number of units in the test splits."""
        return sum(self._units.values())

    def add_test_units(self, repeat: Repeat, units: int) -> None:
        """Record the number of test units of a run."""
        self._units[repeat[0]] = max(units, self._units.get(repeat[0], 0))

    def unit_counts(self, names: tuple[str, ...], units: int) -> Any:
        """How often each draw contains each unit; `names`: the windows."""
        if names not in self._unit_counts:
            rng = np.random.default_rng([1, len(self._unit_counts)])
            self._unit_counts[names] = multiplicities(
                resample_indices(units, self.options.draws, rng)
            )
        return self._unit_counts[names]

    def runs(self, repeats: Sequence[Repeat]) -> Any:
        """The runs of each draw; runs with equal labels on `compare.over` are drawn as a group."""
        key = tuple(repeats)
        if key not in self._runs:
            rng = np.random.default_rng([2, len(self._runs)])
            groups = [choices or seed for choices, seed in repeats]
            self._runs[key] = draw_runs(groups, self.options.draws, rng)
        return self._runs[key]


def _runs(
    pairs: Sequence[tuple[RunSpec, Row]],
    objective: Objective,
    options: Compare,
    folder: Path,
    draws: _Draws,
) -> _Runs:
    done = [(spec, row) for spec, row in pairs if row["error"] is None]
    errors = [f"{row['run']}: {row['error']}" for _, row in pairs if row["error"] is not None]
    metrics: dict[str, list[Floats]] = {}
    regions: dict[str, list[Floats]] = {name: [] for name in _regions([row for _, row in done])}
    if len(regions) > MAX_REGIONS:
        regions = {}
    repeats = [_repeat(spec, options) for spec, _ in done]
    for (spec, _), repeat in zip(done, repeats, strict=True):
        run = folder / RUNS / spec.name
        windows, compute = WindowMetrics.load(run / "test_windows.npz"), _metric_function(run)
        all_windows = _bootstrap_windows(
            compute, windows, range(len(windows.names)), options, draws
        )
        draws.add_test_units(
            repeat, len(set(windows.scenes)) if options.unit == "scene" else len(windows.names)
        )
        for name, values in all_windows.items():
            metrics.setdefault(name, []).append(values)
        for region, samples in regions.items():
            indices = [i for i, group in enumerate(windows.groups) if group == region]
            if not indices:
                samples.append(np.full(options.draws, math.nan))
            elif len(indices) == len(windows.names):
                samples.append(all_windows[objective.metric])
            else:
                by_metric = _bootstrap_windows(compute, windows, indices, options, draws)
                samples.append(by_metric[objective.metric])
    return _Runs(
        repeats,
        [row for _, row in done],
        {name: np.stack(values) for name, values in metrics.items()},
        {name: np.stack(values) for name, values in regions.items()},
        errors,
    )


def _repeat(spec: RunSpec, options: Compare) -> Repeat:
    return tuple(spec.labels[axis] for axis in options.over), spec.labels["seed"]


def _regions(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row["regions"]))


def _bootstrap_windows(
    compute: Callable[[MetricState], dict[str, float]],
    windows: WindowMetrics,
    indices: Sequence[int],
    options: Compare,
    draws: _Draws,
) -> dict[str, Floats]:
    """Bootstrap the metrics of some windows of a run, by window or by scene."""
    units = [windows.states[i] for i in indices]
    if options.unit == "scene":
        units = group_by(units, [windows.scenes[i] for i in indices])
    unit_counts = draws.unit_counts(tuple(windows.names[i] for i in indices), len(units))
    return bootstrap(compute, units, unit_counts)


def _metric_function(run: Path) -> Callable[[MetricState], dict[str, float]]:
    """The function that computes a run's metrics from the state of its windows."""
    task = build_task(parse_sections(load_adapter_config(run).sections, str(run)))
    return with_val_threshold(task, RunDir(run).details("val")).metrics().compute_from


def _line(
    name: str, runs: _Runs, reference: _Runs, objective: Objective, draws: _Draws
) -> MethodSummary:
    def over_runs(
        rows: Sequence[Mapping[str, Any]], metric: str, bootstrapped: Floats | None
    ) -> Estimate:
        by_run = np.array([_known(each.get(metric)) for each in rows])
        drawn = (
            np.empty(0)
            if bootstrapped is None
            else mean_over_runs(bootstrapped, draws.runs(runs.repeats))
        )
        return estimate(by_run, drawn, draws.options.level)

    return MethodSummary(
        name,
        [row["run"] for row in runs.rows],
        runs.errors,
        {
            metric: over_runs([row["metrics"] for row in runs.rows], metric, bootstrapped)
            for metric, bootstrapped in runs.bootstrapped.items()
        },
        _nanmean([row["val"][objective.metric] for row in runs.rows]),
        {
            region: over_runs(
                [row["regions"].get(region, {}) for row in runs.rows],
                objective.metric,
                runs.regions.get(region),
            )
            for region in _regions(runs.rows)
        },
        _gaps(runs, objective.metric, draws),
        None if runs is reference else _difference(runs, reference, objective, draws),
        {cost: _median([_cost(row["cost"], cost) for row in runs.rows]) for cost in COSTS},
        runs.rows[0]["search"] if runs.rows else None,
    )


def _difference(
    runs: _Runs, reference: _Runs, objective: Objective, draws: _Draws
) -> Difference | None:
    """The difference over the replicates that both finished, so that it compares like with like."""
    both = [repeat for repeat in reference.repeats if repeat in runs.repeats]
    if not both:
        return None
    (values, bootstrapped), (base, base_bootstrapped) = (
        each.select(both, objective.metric) for each in (runs, reference)
    )
    sign = -1 if objective.lower else 1
    drawn = draws.runs(both)
    return difference(
        sign * (_nanmean(values) - _nanmean(base)),
        sign * (mean_over_runs(bootstrapped, drawn) - mean_over_runs(base_bootstrapped, drawn)),
        draws.options.level,
        draws.options.margin * abs(_nanmean(base)),
    )


def _gaps(runs: _Runs, metric: str, draws: _Draws) -> dict[str, Estimate]:
    by_region: dict[str, list[tuple[float, float, float]]] = {}
    all_gaps = np.full(len(runs.rows), math.nan)
    for i, gap in enumerate(row["gap"] for row in runs.rows):
        if gap is None:
            continue
        unseen, seen = _known(gap["unseen"][metric]), _known(gap["seen"][metric])
        low, high = (_known(end) for end in gap["intervals"][metric])
        by_region.setdefault(_region_label(gap["unseen_regions"]), []).append(
            (unseen - seen, low, high)
        )
        all_gaps[i] = unseen - seen
    estimates = {}
    if len(by_region) > 1:
        same = np.repeat(all_gaps[:, None], draws.options.draws, axis=1)
        drawn = mean_over_runs(same, draws.runs(runs.repeats))
        estimates[f"mean of {len(by_region)}"] = estimate(all_gaps, drawn, draws.options.level)
    for label, values in by_region.items():
        gaps, lows, highs = zip(*values, strict=True)
        spread = statistics.stdev(gaps) if len(gaps) > 1 else math.nan
        mean = statistics.fmean
        estimates[label] = Estimate(mean(gaps), spread, mean(lows), mean(highs), len(gaps))
    return estimates


def _region_label(regions: Sequence[str]) -> str:
    return ", ".join(regions) if len(regions) <= MAX_NAMED_REGIONS else f"{len(regions)} regions"


def _cost(cost: Mapping[str, Any], name: str) -> float | None:
    """One cost of a run; memory is that of tensors: on a GPU, the measured peak.

    On a CPU, process memory includes much else, so it does not replace an unknown tensor memory.
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
