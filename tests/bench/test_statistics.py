"""Intervals compared with scipy's bootstrap, and verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geotune.bench.statistics import (
    draw_runs,
    estimate,
    mean_over_runs,
    pareto,
    verdict,
)
from geotune.metrics.bootstrap import (
    bootstrap,
    multiplicities,
    percentile_interval,
    resample_indices,
)
from helpers.resampling import DRAWS, mean_of, scipy_interval, windows


def test_seed_bootstrap_matches_scipy() -> None:
    by_seed = np.random.default_rng(4).normal(0.6, 0.03, 12)
    drawn = resample_indices(12, DRAWS, np.random.default_rng(1))
    draws = mean_over_runs(np.repeat(by_seed[:, None], DRAWS, axis=1), drawn)
    result = estimate(by_seed, draws, 0.95)
    assert (result.low, result.high) == pytest.approx(scipy_interval(by_seed), abs=0.001)
    assert result.mean == pytest.approx(by_seed.mean())
    assert result.spread == pytest.approx(by_seed.std(ddof=1)) and result.runs == 12


def test_variances_of_seeds_and_windows_add() -> None:
    """For independent seeds and windows, the variances of both bootstraps add up."""
    rng = np.random.default_rng(0)
    seeds, hard = rng.normal(0, 0.05, 8), rng.normal(0.5, 0.2, 60)
    often = multiplicities(resample_indices(60, DRAWS, rng))
    by_seed = np.stack([bootstrap(mean_of, windows(hard + s), often)["mean"] for s in seeds])
    both = mean_over_runs(by_seed, resample_indices(8, DRAWS, rng))
    expected = seeds.var() / 8 + hard.var() / 60
    assert both.var() == pytest.approx(expected, rel=0.05)


def test_regions_are_resampled_with_their_seeds() -> None:
    """The variance is that of the regional means plus that of seeds within a region."""
    rng = np.random.default_rng(0)
    regions, seeds = rng.normal(0, 0.3, 9), rng.normal(0, 0.05, (9, 4))
    runs = (regions[:, None] + seeds).ravel()
    drawn = draw_runs([region for region in "abcdefghi" for _ in range(4)], DRAWS, rng)
    assert drawn.shape == (DRAWS, 36)
    result = runs[drawn].mean(axis=1)
    of_regions, within = (regions + seeds.mean(axis=1)).var() / 9, seeds.var(axis=1).mean() / 4 / 9
    assert result.var() == pytest.approx(of_regions + within, rel=0.05)
    assert result.mean() == pytest.approx(runs.mean(), abs=0.005)


def test_regions_have_equal_weight() -> None:
    runs = np.array([1.0, 1.0, 1.0, 0.0])
    drawn = draw_runs(["bern", "bern", "bern", "oslo"], DRAWS, np.random.default_rng(0))
    assert runs[drawn].mean() == pytest.approx(0.5, abs=0.02)
    alone = draw_runs([7, 8, 9], 50, np.random.default_rng(0))
    assert alone.shape == (50, 3) and set(np.unique(alone)) == {0, 1, 2}


def test_nan_draws_are_skipped() -> None:
    by_seed = np.array([[0.5, math.nan], [0.7, math.nan]])
    draws = mean_over_runs(by_seed, np.array([[0, 1], [0, 1]]))
    assert draws[0] == pytest.approx(0.6) and math.isnan(draws[1])
    assert percentile_interval(draws, 0.95) == pytest.approx((0.6, 0.6))
    assert all(map(math.isnan, percentile_interval(np.array([math.nan]), 0.95)))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.05, "better"),
        (-0.005, 0.05, "not worse by more than the margin"),
        (-0.008, -0.001, "not worse by more than the margin"),
        (-0.05, -0.01, "worse"),
        (-0.05, 0.02, "undecided"),
        (math.nan, math.nan, "undecided"),
    ],
)
def test_verdicts(low: float, high: float, expected: str) -> None:
    assert verdict(low, high, margin=0.01) == expected


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_pareto_front(points: list[tuple[int, int]]) -> None:
    costs, gains = zip(*points, strict=True)
    on = pareto(costs, gains)
    assert any(on)
    for (cost, gain), front in zip(points, on, strict=True):
        beaten = any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)
        assert front is not beaten
