"""Summarise the runs of a suite by method: metrics, differences with intervals, costs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from geotune.bench.grid import Labels, RunSpec
from geotune.bench.hparam_search import Objective
from geotune.bench.measured_runs import Coverage, MeasuredRuns, Repeat, measure, nan_if_none
from geotune.bench.results import Row
from geotune.bench.statistics import (
    Difference,
    Estimate,
    Sample,
    difference,
    estimate,
    levels,
    pareto,
)
from geotune.bench.suite import Compare
from geotune.metrics.spatial_units import MIN_UNITS
from geotune.utils.text import pluralize

MAX_NAMED_REGIONS = 3
"""More held-out regions than this are shown by their number."""
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


Context = tuple[tuple[str, Any], ...]
"""The labels that the runs of a table have in common, by axis."""


@dataclass(frozen=True)
class MethodSummary:
    """The results of a method within a context.

    Attributes:
        method: its label.
        runs: names of its finished runs, of folds the first.
        errors: messages of its failed runs.
        metrics: every metric of the test split.
        val: the main metric on the validation split, mean over the runs.
        regions: the main metric by region of the test split; intervals are over the seeds.
        gaps: the main metric in regions without training scenes minus that in regions with them,
            by held-out regions; intervals are means of the seeds' intervals over test units. With
            several, their mean comes first, with an interval over the regions.
        difference: the difference to the reference on the runs that both finished; None for the
            reference.
        cost: medians over the runs by `COSTS`; None if unknown.
        searches: the results of its searches: one, or one for each fold.
        pareto_memory, pareto_time: whether it is Pareto-optimal in the metric and this cost.
        trainings: how many trainings the runs were; more than them with folds.
        incomplete: seeds of which some folds are not finished; they are left out.
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
    searches: list[Mapping[str, Any]]
    pareto_memory: bool = False
    pareto_time: bool = False
    trainings: int = 0
    incomplete: int = 0


@dataclass(frozen=True)
class ComparisonTable:
    """The methods of one context, such as a recipe and a fraction of its training data.

    Attributes:
        coverage: the test units that intervals cover.
        comparisons: how many methods were compared with the reference.
        planned: all methods that the suite compares with it, finished or not. They share the error
            rate, so that no interval changes when other methods finish.
        folds: how many folds each run pools.
    """

    context: Labels
    objective: Objective
    reference: str
    coverage: Coverage
    comparisons: int
    lines: list[MethodSummary] = field(default_factory=list)
    planned: list[str] = field(default_factory=list)
    folds: int = 1

    @property
    def title(self) -> str:
        """The context as a title."""
        recipe, *others = self.context.items()
        return ", ".join([str(recipe[1]), *(f"{axis} {label}" for axis, label in others)])

    @property
    def recipe(self) -> str:
        """The name of its recipe."""
        return str(self.context["recipe"])


def compare(
    specs: Sequence[RunSpec],
    rows: Sequence[Row | None],
    objectives: Mapping[str, Objective],
    options: Compare,
    folder: Path,
) -> list[ComparisonTable]:
    """One table per context, in the order of the runs; a run without a row is not finished."""
    contexts: dict[Context, list[tuple[RunSpec, Row | None]]] = {}
    for spec, row in zip(specs, rows, strict=True):
        contexts.setdefault(context_of(spec, options), []).append((spec, row))
    return [
        _table(dict(context), each, objectives[dict(context)["recipe"]], options, folder)
        for context, each in contexts.items()
        if any(row is not None for _, row in each)
    ]


def context_of(spec: RunSpec, options: Compare) -> Context:
    """The labels that the runs of a table have in common."""
    within = (*options.over, *options.folds)
    return tuple((axis, label) for axis, label in spec.context.items() if axis not in within)


def reference_of(methods: Sequence[str], options: Compare) -> str:
    """The method to compare with, whether or not it is finished."""
    return next(name for name in (options.to, "full", *methods) if name and name in methods)


def _table(
    context: Labels,
    pairs: Sequence[tuple[RunSpec, Row | None]],
    objective: Objective,
    options: Compare,
    folder: Path,
) -> ComparisonTable:
    by_method: dict[str, list[tuple[RunSpec, Row | None]]] = {}
    for spec, row in pairs:
        by_method.setdefault(spec.method, []).append((spec, row))
    to = reference_of([*by_method], options)
    planned = [name for name in by_method if name != to]
    started = {
        name: each for name, each in by_method.items() if any(row is not None for _, row in each)
    }
    runs, coverage = measure(started, to, options, folder)
    if to not in runs or not runs[to].rows:
        reason = coverage.reason or f"{to}, the reference, has no complete run"
        coverage = replace(coverage, reason=reason)
    compared = [
        name
        for name in planned
        if coverage.comparable and name in runs and to in runs and _common(runs[name], runs[to])
    ]
    level_of = levels(options.level, planned, options.primary)
    lines = [
        _line(
            name,
            each,
            objective,
            options,
            _difference(each, runs[to], objective, coverage, level_of[name], options.margin)
            if name in compared
            else None,
        )
        for name, each in runs.items()
    ]
    sign = -1 if objective.lower else 1
    scores = [sign * _mean(line, objective) if coverage.comparable else math.nan for line in lines]
    fronts = [
        pareto([nan_if_none(line.cost[cost]) for line in lines], scores)
        for cost in ("memory_bytes", "seconds_per_step")
    ]
    lines_with_fronts = [
        replace(line, pareto_memory=pareto_memory, pareto_time=pareto_time)
        for line, pareto_memory, pareto_time in zip(lines, *fronts, strict=True)
    ]
    folds = max((len(run) for each in runs.values() for run in each.folders), default=1)
    return ComparisonTable(
        context, objective, to, coverage, len(compared), lines_with_fronts, planned, folds
    )


def _mean(line: MethodSummary, objective: Objective) -> float:
    return line.metrics[objective.metric].mean if objective.metric in line.metrics else math.nan


def _line(
    name: str,
    runs: MeasuredRuns,
    objective: Objective,
    options: Compare,
    difference: Difference | None,
) -> MethodSummary:
    regions = dict.fromkeys(region for row in runs.rows for region in row["regions"])
    return MethodSummary(
        name,
        [row["run"] for row in runs.rows],
        runs.errors,
        {
            metric: estimate(runs.sample(metric, runs.repeats), options.level)
            for metric in dict.fromkeys(name for row in runs.rows for name in row["metrics"])
        },
        _nanmean([row["val"][objective.metric] for row in runs.rows]),
        {region: _in_region(runs, region, objective.metric, options.level) for region in regions},
        _gaps(runs, objective.metric, options.level),
        difference,
        {cost: _median([_cost(row["cost"], cost) for row in runs.rows]) for cost in COSTS},
        runs.searches,
        trainings=sum(map(len, runs.folders)),
        incomplete=runs.incomplete,
    )


def _in_region(runs: MeasuredRuns, region: str, metric: str, level: float) -> Estimate:
    """The metric in a region, with an interval over the seeds."""
    values = [row["regions"][region].get(metric) for row in runs.rows if region in row["regions"]]
    return estimate(Sample(np.array([nan_if_none(value) for value in values])), level)


def _common(runs: MeasuredRuns, reference: MeasuredRuns) -> list[Repeat]:
    """The replicates that both finished."""
    return [repeat for repeat in reference.repeats if repeat in runs.repeats]


def _difference(
    runs: MeasuredRuns,
    reference: MeasuredRuns,
    objective: Objective,
    coverage: Coverage,
    level: float,
    margin: float,
) -> Difference:
    """The difference over the replicates that both finished, so that it compares like with like."""
    both = _common(runs, reference)
    sign = -1 if objective.lower else 1
    mine, base = (each.sample(objective.metric, both, sign) for each in (runs, reference))
    reason = coverage.reason
    if not reason and len(mine.by_run) < (MIN_UNITS if mine.held_out else 2):
        few = pluralize(len(mine.by_run), "held-out region")
        reason = f"only {few}" if mine.held_out else "one seed"
    return difference(mine, base, level, margin, reason)


def _gaps(runs: MeasuredRuns, metric: str, level: float) -> dict[str, Estimate]:
    """By held-out regions: the mean over seeds of the gaps and of the ends of their intervals."""
    by_region: dict[str, list[tuple[float, float, float]]] = {}
    for row in runs.rows:
        gap = row.get("gap")
        if gap is None or not row["regions"]:  # without regions these are single images
            continue
        unseen, seen = nan_if_none(gap["unseen"][metric]), nan_if_none(gap["seen"][metric])
        # before gaps had units, their intervals were over single windows
        ends = gap["intervals"][metric] if "units" in gap else (None, None)
        low, high = map(nan_if_none, ends)
        by_region.setdefault(_region_label(gap["unseen_regions"]), []).append(
            (unseen - seen, low, high)
        )
    mean = statistics.fmean
    estimates = {}
    if len(by_region) > 1:
        means = np.array([mean(gap for gap, _, _ in each) for each in by_region.values()])
        sample = Sample(means, held_out=True)
        estimates[f"mean of {len(by_region)}"] = estimate(sample, level)
    for label, values in by_region.items():
        gaps, lows, highs = zip(*values, strict=True)
        spread = statistics.stdev(gaps) if len(gaps) > 1 else math.nan
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
