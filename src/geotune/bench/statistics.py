"""How sure a figure and a difference are, by drawing anew (Efron and Tibshirani, 1993).

A figure owes something to chance twice: to the seed of its training and to which windows it was
tested on. So both are drawn, with replacement: seeds as wholes, and windows, the same for all seeds
and methods, so that what makes a window hard for all of them cancels in a difference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from geotune.tasks.redraw import Floats, interval

Verdict = Literal["better", "not worse by more than the margin", "worse", "undecided"]


@dataclass(frozen=True)
class Estimate:
    """A figure over seeds.

    Attributes:
        mean: over the seeds, on the whole test part.
        spread: standard deviation of the seeds; NaN of one.
        low: where its interval begins.
        high: where that ends.
        seeds: how many there are.
    """

    mean: float
    spread: float
    low: float
    high: float
    seeds: int


@dataclass(frozen=True)
class Difference:
    """A figure less that of the method compared with, positive where it is better."""

    mean: float
    low: float
    high: float
    verdict: Verdict


def over_seeds(by_seed: Floats, drawn: NDArray[np.int64]) -> Floats:
    """Means `(draws,)` over drawn seeds `(draws, S)` of figures `(S, draws)`.

    A figure that is NaN, such as that of a class which no drawn window shows, is left out.
    """
    picked = by_seed[drawn, np.arange(len(drawn))[:, None]]
    known = ~np.isnan(picked)
    total = np.where(known, picked, 0.0).sum(axis=1)
    count = known.sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def estimate(by_seed: Floats, draws: Floats, level: float) -> Estimate:
    """Of the seeds' figures `(S,)` and means of draws: percentile interval of a level."""
    known = by_seed[~np.isnan(by_seed)]
    return Estimate(
        float(known.mean()) if len(known) else math.nan,
        float(known.std(ddof=1)) if len(known) > 1 else math.nan,
        *interval(draws, level),
        len(by_seed),
    )


def difference(mean: float, draws: Floats, level: float, margin: float) -> Difference:
    """Of a difference that is positive where it is better, its draws, and a margin in its unit."""
    low, high = interval(draws, level)
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
