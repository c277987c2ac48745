"""The runs of a method with bootstrapped metrics of their test windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from geotune.adapter_config import load_adapter_config
from geotune.bench.grid import RunSpec
from geotune.bench.hparam_search import Objective
from geotune.bench.results import Row
from geotune.bench.runner import RUNS
from geotune.bench.statistics import draw_runs
from geotune.bench.suite import Compare
from geotune.config import parse_sections
from geotune.factory.build_model import build_task, with_val_threshold
from geotune.metrics.bootstrap import Floats, bootstrap, group_by, multiplicities, resample_indices
from geotune.metrics.state import MetricState
from geotune.training.run_dir import RunDir
from geotune.training.window_metrics import WindowMetrics

MAX_REGIONS = 12
"""With more regions than this, their intervals are omitted, as each costs a full bootstrap."""

Repeat = tuple[tuple[Any, ...], int]
"""The replicate of a run: its labels on the axes of `compare.over`, and its seed."""


@dataclass(frozen=True)
class BootstrappedRuns:
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
        values = [nan_if_none(self.rows[i]["metrics"][metric]) for i in indices]
        return values, self.bootstrapped[metric][indices]


class BootstrapDraws:
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


def bootstrap_runs(
    pairs: Sequence[tuple[RunSpec, Row]],
    objective: Objective,
    options: Compare,
    folder: Path,
    draws: BootstrapDraws,
) -> BootstrappedRuns:
    """The runs of a method, with the bootstrapped metrics of the finished ones."""
    done = [(spec, row) for spec, row in pairs if row["error"] is None]
    errors = [f"{row['run']}: {row['error']}" for _, row in pairs if row["error"] is not None]
    metrics: dict[str, list[Floats]] = {}
    regions: dict[str, list[Floats]] = {name: [] for name in region_names([row for _, row in done])}
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
    return BootstrappedRuns(
        repeats,
        [row for _, row in done],
        {name: np.stack(values) for name, values in metrics.items()},
        {name: np.stack(values) for name, values in regions.items()},
        errors,
    )


def _repeat(spec: RunSpec, options: Compare) -> Repeat:
    return tuple(spec.labels[axis] for axis in options.over), spec.labels["seed"]


def region_names(rows: Sequence[Row]) -> list[str]:
    """The regions that occur in rows."""
    return list(dict.fromkeys(name for row in rows for name in row["regions"]))


def _bootstrap_windows(
    compute: Callable[[MetricState], dict[str, float]],
    windows: WindowMetrics,
    indices: Sequence[int],
    options: Compare,
    draws: BootstrapDraws,
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


def nan_if_none(value: float | None) -> float:
    """The value, NaN if it is unknown."""
    return math.nan if value is None else value
