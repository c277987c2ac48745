"""Bootstrap resampling of evaluation windows (Efron and Tibshirani, 1993).

Windows, or scenes if the windows of a scene are alike, are resampled with replacement to estimate
how much a metric depends on the choice of windows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from geotune.metrics.state import MetricState

Floats = NDArray[np.float64]


def resample_indices(count: int, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices `(draws, count)`, sampled with replacement."""
    return rng.integers(count, size=(draws, count))


def multiplicities(indices: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each unit occurs in each resample, `(draws, count)`, from indices of that shape."""
    draws, count = indices.shape
    bins = indices + count * np.arange(draws)[:, None]
    return np.bincount(bins.ravel(), minlength=draws * count).reshape(draws, count)


def bootstrap(
    compute: Callable[[MetricState], dict[str, float]],
    units: Sequence[MetricState],
    multiplicity: NDArray[np.int64],
) -> dict[str, Floats]:
    """Every metric on every resample, `(draws,)` by name.

    Args:
        compute: computes metrics from a state, as `Metrics.compute_from`.
        units: the states of what is resampled, windows or scenes.
        multiplicity: how often each unit occurs in each resample, `(draws, units)`.
    """
    sums = {
        name: np.tensordot(multiplicity, np.stack([unit.sums[name] for unit in units]), axes=1)
        for name in units[0].sums
    }
    lists = MetricState.merge(units).lists
    unit_of_row = {
        name: np.repeat(np.arange(len(units)), [len(unit.lists[name]) for unit in units])
        for name in lists
    }
    results = []
    for i, count in enumerate(multiplicity):
        rows = {n: np.repeat(array, count[unit_of_row[n]], axis=0) for n, array in lists.items()}
        results.append(compute(MetricState({name: array[i] for name, array in sums.items()}, rows)))
    return {name: np.array([metrics[name] for metrics in results]) for name in results[0]}


def percentile_interval(draws: Floats, level: float) -> tuple[float, float]:
    """The percentile interval of draws, ignoring NaN; NaN if all draws are."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def group_by(states: Sequence[MetricState], names: Sequence[str]) -> list[MetricState]:
    """States merged by name, such as their scene's, in order of first appearance."""
    by_name: dict[str, list[MetricState]] = {}
    for state, name in zip(states, names, strict=True):
        by_name.setdefault(name, []).append(state)
    return [MetricState.merge(group) for group in by_name.values()]
