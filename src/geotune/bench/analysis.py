"""Summarise the runs of a suite by method: metrics, differences with intervals, costs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from geotune.bench.bootstrapped_runs import (
    BootstrapDraws,
    BootstrappedRuns,
    bootstrap_runs,
    nan_if_none,
    region_names,
)
from geotune.bench.grid import Labels, RunSpec
from geotune.bench.hparam_search import Objective
from geotune.bench.results import Row
from geotune.bench.statistics import (
    Difference,
    Estimate,
    difference,
    estimate,
    mean_over_runs,
    pareto,
)
from geotune.bench.suite import Compare
from geotune.metrics.bootstrap import Floats

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
    draws = BootstrapDraws(options)
    runs = {
        name: bootstrap_runs(each, objective, options, folder, draws)
        for name, each in by_method.items()
    }
    reference = options.to if options.to in runs else "full" if "full" in runs else next(iter(runs))
    lines = [_line(name, each, runs[reference], objective, draws) for name, each in runs.items()]
    sign = -1 if objective.lower else 1
    scores = [sign * _mean(line, objective) for line in lines]
    fronts = [
        pareto([nan_if_none(line.cost[cost]) for line in lines], scores)
        for cost in ("memory_bytes", "seconds_per_step")
    ]
    lines_with_fronts = [
        replace(line, pareto_memory=pareto_memory, pareto_time=pareto_time)
        for line, pareto_memory, pareto_time in zip(lines, *fronts, strict=True)
    ]
    return ComparisonTable(context, objective, reference, draws.units, lines_with_fronts)


def _mean(line: MethodSummary, objective: Objective) -> float:
    return line.metrics[objective.metric].mean if objective.metric in line.metrics else math.nan


def _line(
    name: str,
    runs: BootstrappedRuns,
    reference: BootstrappedRuns,
    objective: Objective,
    draws: BootstrapDraws,
) -> MethodSummary:
    def over_runs(
        rows: Sequence[Mapping[str, Any]], metric: str, bootstrapped: Floats | None
    ) -> Estimate:
        by_run = np.array([nan_if_none(each.get(metric)) for each in rows])
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
            for region in region_names(runs.rows)
        },
        _gaps(runs, objective.metric, draws),
        None if runs is reference else _difference(runs, reference, objective, draws),
        {cost: _median([_cost(row["cost"], cost) for row in runs.rows]) for cost in COSTS},
        runs.rows[0]["search"] if runs.rows else None,
    )


def _difference(
    runs: BootstrappedRuns, reference: BootstrappedRuns, objective: Objective, draws: BootstrapDraws
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


def _gaps(runs: BootstrappedRuns, metric: str, draws: BootstrapDraws) -> dict[str, Estimate]:
    by_region: dict[str, list[tuple[float, float, float]]] = {}
    all_gaps = np.full(len(runs.rows), math.nan)
    for i, gap in enumerate(row["gap"] for row in runs.rows):
        if gap is None:
            continue
        unseen, seen = nan_if_none(gap["unseen"][metric]), nan_if_none(gap["seen"][metric])
        low, high = (nan_if_none(end) for end in gap["intervals"][metric])
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
