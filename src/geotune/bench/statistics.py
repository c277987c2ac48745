"""How sure a figure and a difference are, by drawing anew (Efron and Tibshirani, 1993).

A figure owes something to chance twice: to the seed of its training and to which windows it was
tested on. So both are drawn, with replacement: seeds as wholes, and windows, the same for all seeds
and methods, so that what makes a window hard for all of them cancels in a difference. Where regions
are held out in turn it also owes to which regions there are, and these are drawn before all else.
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
    """A figure over runs that repeat each other: seeds, or regions that are held out in turn.

    Attributes:
        mean: over the runs, each on its whole test part.
        spread: standard deviation of the runs; NaN of one.
        low: where its interval begins.
        high: where that ends.
        runs: how many there are.
    """

    mean: float
    spread: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True)
class Difference:
    """A figure less that of the method compared with, positive where it is better."""

    mean: float
    low: float
    high: float
    verdict: Verdict


def draw_runs(
    groups: Sequence[Hashable], draws: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Which runs are drawn, `(draws, picks)`: groups of them as wholes, then runs in each.

    `groups` has what each run belongs to, such as the region that it held out; of each drawn group
    as many runs are drawn as the largest has, so that groups count the same.
    """
    members: dict[Hashable, list[int]] = {}
    for run, group in enumerate(groups):
        members.setdefault(group, []).append(run)
    picked = resample_indices(len(members), draws, rng)
    counts = np.array([len(runs) for runs in members.values()])
    padded = np.zeros((len(members), counts.max()), dtype=np.int64)
    for row, runs in zip(padded, members.values(), strict=True):
        row[: len(runs)] = runs
    inner = rng.integers(counts[picked][..., None], size=(*picked.shape, counts.max()))
    found: NDArray[np.int64] = padded[picked[..., None], inner].reshape(draws, -1)
    return found


def over_runs(by_run: Floats, drawn: NDArray[np.int64]) -> Floats:
    """Means `(draws,)` over drawn runs `(draws, picks)` of figures `(S, draws)`.

    A figure that is NaN, such as that of a class which no drawn window shows, is left out.
    """
    picked = by_run[drawn, np.arange(len(drawn))[:, None]]
    known = ~np.isnan(picked)
    total = np.where(known, picked, 0.0).sum(axis=1)
    count = known.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def estimate(by_run: Floats, draws: Floats, level: float) -> Estimate:
    """Of the runs' figures `(S,)` and means of draws: percentile interval of a level."""
    known = by_run[~np.isnan(by_run)]
    return Estimate(
        float(known.mean()) if len(known) else math.nan,
        float(known.std(ddof=1)) if len(known) > 1 else math.nan,
        *percentile_interval(draws, level),
        len(by_run),
    )


def difference(mean: float, draws: Floats, level: float, margin: float) -> Difference:
    """Of a difference that is positive where it is better, its draws, and a margin in its unit."""
    low, high = percentile_interval(draws, level)
    return Difference(mean, low, high, verdict(low, high, margin))


def verdict(low: float, high: float, margin: float) -> Verdict:
    """What an interval of a difference says, in plain words."""
    if low > 0:
        return "better"
    if low > -margin:
        return "not worse by more than the margin"
    return "worse" if high < 0 else "undecided"


def pareto(costs: Sequence[float], gains: Sequence[float]) -> list[bool]:
    """Which are beaten by none that costs no more and gains no less, and one of both strictly."""
    points: list[Any] = list(zip(costs, gains, strict=True))
    return [
        not math.isnan(cost + gain)
        and not any(c <= cost and g >= gain and (c < cost or g > gain) for c, g in points)
        for cost, gain in points
    ]
