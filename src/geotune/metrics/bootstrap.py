"""How much figures owe to which windows they were measured on: windows are drawn anew.

As often as there are windows, with replacement (Efron and Tibshirani, 1993). What is drawn may be
scenes, too, where the windows of one are alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from geotune.metrics.state import MetricState

Floats = NDArray[np.float64]


def resample_indices(count: int, draws: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Indices `(draws, count)`, with replacement."""
    return rng.integers(count, size=(draws, count))


def multiplicities(drawn: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each of `count` was drawn, `(draws, count)`, of indices of that shape."""
    draws, count = drawn.shape
    places = drawn + count * np.arange(draws)[:, None]
    return np.bincount(places.ravel(), minlength=draws * count).reshape(draws, count)


def bootstrap(
    of: Callable[[MetricState], dict[str, float]],
    units: Sequence[MetricState],
    often: NDArray[np.int64],
) -> dict[str, Floats]:
    """Every figure of a run on windows drawn anew, `(draws,)` by name.

    Args:
        of: makes figures, as `Metrics.of`.
        units: what is drawn, windows or scenes.
        often: how often each of them was drawn, `(draws, units)`.
    """
    sums = {
        name: np.tensordot(often, np.stack([unit.sums[name] for unit in units]), axes=1)
        for name in units[0].sums
    }
    lists = MetricState.join(units).lists
    whose = {
        name: np.repeat(np.arange(len(units)), [len(unit.lists[name]) for unit in units])
        for name in lists
    }
    found = []
    for i, count in enumerate(often):
        rows = {n: np.repeat(array, count[whose[n]], axis=0) for n, array in lists.items()}
        found.append(of(MetricState({name: array[i] for name, array in sums.items()}, rows)))
    return {name: np.array([figures[name] for figures in found]) for name in found[0]}


def percentile_interval(draws: Floats, level: float) -> tuple[float, float]:
    """The percentile interval of draws; NaN where there are none."""
    known = draws[~np.isnan(draws)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def of_units(parts: Sequence[MetricState], names: Sequence[str]) -> list[MetricState]:
    """Windows joined by a name of each, such as their scene, in the order of the names."""
    by_name: dict[str, list[MetricState]] = {}
    for part, name in zip(parts, names, strict=True):
        by_name.setdefault(name, []).append(part)
    return [MetricState.join(each) for each in by_name.values()]
