"""Bootstrap intervals of metrics and differences (Efron and Tibshirani, 1993).

A metric varies with the training seed and with the test windows, so both are resampled with
replacement. All seeds and methods share the resampled windows, so variation in window difficulty
cancels in differences. If regions are held out in turn, regions are resampled first.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geotune.metrics.bootstrap import Floats, percentile_interval, resample_indices

Verdict = Literal["better", "not worse by more than the margin", "worse", "undecided"]


@dataclass(frozen=True)
class Estimate:
    """A metric over replicate runs: seeds, or regions held out in turn.

    Attributes:
        mean: over the runs, each on its whole test split.
        spread: standard deviation of the runs; NaN for a single run.
        low, high: bounds of the interval.
        runs: number of runs.
    """

    mean: float
    spread: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True)
class Difference:
    """A metric minus that of the reference, with the sign chosen so that positive is better."""

    mean: float
    low: float
    high: float
    verdict: Verdict


def draw_runs(
    groups: Sequence[Hashable], draws: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Resampled run indices `(draws, picks)`: groups first, then runs within each group.

    `groups` has the group of each run, such as its held-out region. Each drawn group contributes
    as many runs as the largest group has, so groups have equal weight.
    """
    members: dict[Hashable, list[int]] = {}
    for run, group in enumerate(groups):
        members.setdefault(group, []).append(run)
    selected = resample_indices(len(members), draws, rng)
    counts = np.array([len(runs) for runs in members.values()])
    padded = np.zeros((len(members), counts.max()), dtype=np.int64)
    for row, runs in zip(padded, members.values(), strict=True):
        row[: len(runs)] = runs
    inner = rng.integers(counts[selected][..., None], size=(*selected.shape, counts.max()))
    indices: NDArray[np.int64] = padded[selected[..., None], inner].reshape(draws, -1)
    return indices


def mean_over_runs(by_run: Floats, drawn: NDArray[np.int64]) -> Floats:
    """Means `(draws,)` of metrics `(runs, draws)` over resampled runs `(draws, picks)`.

    NaN values, such as the metric of a class that no drawn window contains, are skipped.
    """
    selected = by_run[drawn, np.arange(len(drawn))[:, None]]
    known = ~np.isnan(selected)
    total = np.where(known, selected, 0.0).sum(axis=1)
    count = known.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def estimate(by_run: Floats, draws: Floats, level: float) -> Estimate:
    """Mean and spread of the runs' metrics `(runs,)`, with the percentile interval of the draws."""
    known = by_run[~np.isnan(by_run)]
    return Estimate(
        float(known.mean()) if len(known) else math.nan,
        float(known.std(ddof=1)) if len(known) > 1 else math.nan,
        *percentile_interval(draws, level),
        len(by_run),
    )


def difference(mean: float, draws: Floats, level: float, margin: float) -> Difference:
    """The interval and verdict of a difference; `margin` is in units of the metric."""
    low, high = percentile_interval(draws, level)
    return Difference(mean, low, high, verdict(low, high, margin))


def verdict(low: float, high: float, margin: float) -> Verdict:
    """The verdict on a difference: better and worse if its interval excludes zero."""
    if low > 0:
        return "better"
    if low > -margin:
        return "not worse by more than the margin"
    return "worse" if high < 0 else "undecided"


def pareto(costs: Sequence[float], gains: Sequence[float]) -> list[bool]:
    """Which points are Pareto-optimal: no other has cost <= and gain >=, one of them strictly."""
    points: list[Any] = list(zip(costs, gains, strict=True))
    return [
        not math.isnan(cost + gain)
        and not any(c <= cost and g >= gain and (c < cost or g > gain) for c, g in points)
        for cost, gain in points
    ]
