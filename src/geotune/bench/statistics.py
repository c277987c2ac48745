"""Intervals and verdicts of a comparison; docs/explanation/statistics.md has their calibration.

Two things vary by chance: training (the seed) and the choice of test units. Their variances are
estimated separately and combined without assuming which one dominates
(`geotune.metrics.uncertainty.half_width`). All seeds and methods share the test units, and runs of
two methods with one seed see the same training windows in the same order, so differences are taken
run by run and unit by unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from geotune.metrics.uncertainty import (
    Floats,
    Variance,
    effective_units,
    half_width,
    variance_over_units,
)
from geotune.utils.text import pluralize

Verdict = Literal[
    "better", "equivalent", "not inferior", "no difference shown", "worse", "no verdict"
]

MIN_EFFECTIVE = 5
"""Test units worth fewer equal ones allow no verdict: see docs/explanation/statistics.md."""

MIN_DATA_SETS = 3
"""Fewer data sets are not combined."""


@dataclass(frozen=True)
class Sample:
    """A metric, or a difference of two, with what is known of its variation.

    Attributes:
        by_run: `(..., S)`, the metric of each run on all test units, by seed.
        influence: `(..., S, U)`, the influence of each test unit on it; None if unknown.
        effective: `(...)`, the effective number of units; computed unless given.
        held_out: the runs are held-out regions in turn instead of seeds.
    """

    by_run: Floats
    influence: Floats | None = None
    effective: Floats | None = None
    held_out: bool = False

    def __post_init__(self) -> None:
        if self.influence is not None and self.effective is None:
            effective = effective_units(self.influence[..., None, :, :])
            object.__setattr__(self, "effective", effective)

    @property
    def mean(self) -> Any:
        """The mean over the runs `(...)`."""
        return self.by_run.mean(axis=-1)

    def minus(self, other: Sample) -> Sample:
        """The difference, run by run and unit by unit."""
        by_run = self.by_run - other.by_run
        if self.influence is None or other.influence is None:
            return Sample(by_run, held_out=self.held_out)
        both = np.stack(np.broadcast_arrays(self.influence, other.influence), axis=-3)
        return Sample(by_run, both[..., 0, :, :] - both[..., 1, :, :], effective_units(both))

    def variances(self) -> list[Variance]:
        """The variances of the mean from the runs and from the test units, as far as known.

        Their sum is at least the variance in a model with crossed random effects of seeds and
        units: it contains the interaction of both twice, as the variance over seeds on the same
        units and the variance over units of the mean over seeds. The training data of held-out
        regions overlap, so their variance is enlarged (Nadeau and Bengio, Inference for the
        generalization error, Machine Learning 2003).
        """
        known = []
        runs = self.by_run.shape[-1]
        if runs > 1:
            share = 1 / runs + (1 / (runs - 1) if self.held_out else 0)
            variance = self.by_run.var(axis=-1, ddof=1) * share
            known.append(Variance(variance, np.full(np.shape(variance), runs - 1.0)))
        if self.influence is not None and self.effective is not None:
            known.append(variance_over_units(self.influence.mean(axis=-2), self.effective))
        return known

    def half_width(self, level: float) -> Any:
        """Half the width of the interval of the mean `(...)`; NaN if no variation is known."""
        variances = self.variances()
        return half_width(variances, level) if variances else np.full(np.shape(self.mean), math.nan)


@dataclass(frozen=True)
class Estimate:
    """A metric over replicate runs: seeds, or regions held out in turn.

    Attributes:
        mean: over the runs, each on its whole test split.
        spread: standard deviation of the runs; NaN for a single run.
        low, high: bounds of the interval, for this metric alone.
        runs: number of runs.
    """

    mean: float
    spread: float
    low: float
    high: float
    runs: int


@dataclass(frozen=True)
class Difference:
    """A metric minus that of the reference, with the sign chosen so that positive is better.

    Attributes:
        low, high: bounds of the simultaneous interval.
        verdict: read off the interval.
        reason: why there is no verdict.
        relative: the difference as a share of the reference's metric.
    """

    mean: float
    low: float
    high: float
    verdict: Verdict
    reason: str = ""
    relative: float = math.nan

    def __str__(self) -> str:
        return f"{self.verdict}: {self.reason}" if self.reason else self.verdict


def estimate(sample: Sample, level: float) -> Estimate:
    """Mean, standard deviation over the runs, and interval of a metric.

    Runs without the metric, such as that of a class that their test split lacks, are left out.
    """
    known = ~np.isnan(sample.by_run)
    by_run = sample.by_run[known]
    if not len(by_run):
        return Estimate(math.nan, math.nan, math.nan, math.nan, len(known))
    influence = None if sample.influence is None else sample.influence[known]
    sample = Sample(by_run, influence, held_out=sample.held_out)
    mean, half = float(sample.mean), float(sample.half_width(level))
    spread = float(by_run.std(ddof=1)) if len(by_run) > 1 else math.nan
    return Estimate(mean, spread, mean - half, mean + half, len(known))


def levels(level: float, methods: Sequence[str], primary: Sequence[str]) -> dict[str, float]:
    """The level of each method's interval, so that all hold at once with probability `level`.

    By the inequality of Bonferroni (Dunn, Multiple comparisons among means, 1961), for any
    dependence. Methods in `primary` share half of the error rate, the others the rest. Step-down
    tests (Holm 1979) reject a little more, but no simultaneous intervals agree with them.
    """
    planned = [name for name in methods if name in primary]
    others = [name for name in methods if name not in primary]
    share = (1 - level) / (2 if planned and others else 1)
    return {name: 1 - share / len(each) for each in (planned, others) for name in each}


def difference(
    sample: Sample, reference: Sample, level: float, margin: float, reason: str = ""
) -> Difference:
    """The difference to the reference, its interval and verdict.

    Args:
        sample: of the method; negated, as is the reference, if lower values are better.
        reference: of the reference, with the same runs and units.
        level: of this interval, see `levels`.
        margin: the largest difference without importance, as a share of the reference's metric.
        reason: why there can be no verdict, if so.
    """
    result = sample.minus(reference)
    mean, half = float(result.mean), float(result.half_width(level))
    scale = abs(float(reference.mean)) or math.nan
    if not reason and math.isnan(half):
        reason = "the metric is undefined for a run, or without one test unit"
    if not reason and result.effective is not None and result.effective < MIN_EFFECTIVE:
        reason = "few test units outweigh the others"
    low, high = mean - half, mean + half
    word = "no verdict" if reason else verdict(low, high, margin * scale)
    return Difference(mean, low, high, word, reason, mean / scale)


def verdict(low: float, high: float, margin: float) -> Verdict:
    """The verdict from a simultaneous interval; `margin` in units of the metric.

    All verdicts of a table are read off intervals that hold together, so at most one table in
    twenty (at 95 %) has any false one. An interval within the margins shows equivalence (the two
    one-sided tests of Schuirmann 1987, at half the usual error rate), whatever its sign.
    """
    if -margin < low and high < margin:
        return "equivalent"
    if low > 0:
        return "better"
    if high < 0:
        return "worse"
    return "not inferior" if low > -margin else "no difference shown"


def combine(
    differences: Sequence[Difference], level: float, margin: float, reason: str = ""
) -> Difference:
    """The mean over data sets of the relative differences, with interval and verdict.

    Data sets are the units, with equal weights: a t interval over them holds for data sets like
    these, however precise each is (Ibragimov and Mueller, t-statistic based correlation and
    heterogeneity robust inference, 2010). Weights by precision (Hartung and Knapp 2001) give
    shorter intervals, which miss too often where the precision is estimated from few seeds: see
    docs/explanation/statistics.md. `reason`, if any, why there is no verdict.
    """
    effects = Sample(np.array([each.relative for each in differences]))
    mean, half = float(effects.mean), float(effects.half_width(level))
    count = len(differences)
    if not reason and count < MIN_DATA_SETS:
        reason = f"only {pluralize(count, 'data set')}"
    if not reason and math.isnan(half):
        reason = "a difference is unknown"
    low, high = mean - half, mean + half
    word = "no verdict" if reason else verdict(low, high, margin)
    return Difference(mean, low, high, word, reason, mean)


def pareto(costs: Sequence[float], gains: Sequence[float]) -> list[bool]:
    """Which points are Pareto-optimal: no other has cost <= and gain >=, one of them strictly."""
    points: list[Any] = list(zip(costs, gains, strict=True))
    return [
        not math.isnan(cost + gain)
        and not any(c <= cost and g >= gain and (c < cost or g > gain) for c, g in points)
        for cost, gain in points
    ]
