"""How much a metric depends on chance: jackknife over test units, and t intervals.

A *unit* is what is drawn independently when data are collected, such as a scene or a region; see
`geotune.metrics.test_units`. Metrics such as IoU are not means over units, so the influence of a
unit is found by leaving it out (the jackknife; Efron and Stein, The jackknife estimate of variance,
Annals of Statistics 1981). Independent sources of chance are combined after Banerjee (Approximate
confidence interval for linear functions of means of k populations when the population variances are
not equal, Sankhya 1960).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotune.metrics.state import MetricState

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Variance:
    """A variance estimate `(...)` and its degrees of freedom `(...)`."""

    value: Floats
    df: Floats


def influences(
    compute: Callable[[MetricState], Mapping[str, float]], units: Sequence[MetricState]
) -> dict[str, Floats]:
    """The influence of each unit on every metric, `(units,)` by name; the influences sum to zero.

    If a metric is a mean over equal units, the influence of a unit is its value minus the mean.
    Influences are NaN where the metric is undefined without one of the units.

    Args:
        compute: computes metrics from a state, as `Metrics.compute_from`.
        units: the states of at least two units.
    """
    total = MetricState.merge(units)
    unit_of_row = {
        name: np.repeat(np.arange(len(units)), [len(unit.lists[name]) for unit in units])
        for name in total.lists
    }
    left_out = []
    for i, unit in enumerate(units):
        sums = {name: total.sums[name] - unit.sums[name] for name in total.sums}
        lists = {name: rows[unit_of_row[name] != i] for name, rows in total.lists.items()}
        left_out.append(compute(MetricState(sums, lists)))
    result = {}
    for name in left_out[0]:
        values = np.array([metrics[name] for metrics in left_out])
        result[name] = (len(units) - 1) * (values.mean() - values)
    return result


def effective_units(influence: Floats) -> Floats:
    """The number of equally large units that are worth as much, `(...)`, at most `U`.

    Units without objects count for nothing, and one with most of them outweighs the others. The
    size of a unit shows in its influences, whose standard deviation is proportional to it. Their
    squares are averaged over independent contrasts of the runs (the mean, differences of methods,
    differences of seeds) and give the number of Kish (Survey Sampling, 1965), corrected for the
    spread of this average.

    Args:
        influence: of each unit on a metric of M methods in S runs, `(..., M, S, U)`.
    """
    methods, seeds, units = influence.shape[-3:]
    by_method = influence.mean(axis=-2, keepdims=True)
    mean = by_method.mean(axis=-3, keepdims=True)
    shares, contrasts = np.zeros((*influence.shape[:-3], units)), 0
    for number, values in (
        (1, mean),
        (methods - 1, by_method - mean),
        (methods * (seeds - 1), influence - by_method),
    ):
        squares = np.sum(values**2, axis=(-3, -2))
        total = squares.sum(axis=-1, keepdims=True)
        if number and np.all(total > 0):
            shares += number * squares / total
            contrasts += number
    if not contrasts:
        return np.full(influence.shape[:-3], float(units))
    roots = np.sqrt(shares / contrasts).sum(axis=-1) ** 2
    bias = (
        2
        / contrasts
        * math.exp(2 * (math.lgamma((contrasts + 1) / 2) - math.lgamma(contrasts / 2)))
    )
    number_of_units: Floats = np.clip(roots / bias, 2, units)
    return number_of_units


def variance_over_units(influence: Floats, effective: Floats) -> Variance:
    """The jackknife variance of a metric from the influences `(..., U)` of independent units.

    Its degrees of freedom are one less than the effective number of units `(...)`.
    """
    units = influence.shape[-1]
    return Variance(np.sum(influence**2, axis=-1) / (units * (units - 1)), effective - 1)


def half_width(variances: Sequence[Variance], level: float) -> Floats:
    """Half the width `(...)` of the interval of a mean with independent sources of chance.

    With `t_i` the quantile of source i, it is `sqrt(sum t_i^2 variance_i)`: the coverage is at
    least `level` for normal sources, however their variances relate (Banerjee 1960). With the
    degrees of freedom of Satterthwaite (1946) intervals are shorter, but miss far more often than
    stated where one source has few degrees of freedom: see docs/explanation/statistics.md.
    """
    from scipy.stats import t  # takes a second to import

    squares: Any = sum(t.ppf((1 + level) / 2, each.df) ** 2 * each.value for each in variances)
    widths: Floats = np.sqrt(squares)
    return widths
