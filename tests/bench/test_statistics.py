"""Intervals and verdicts, held against scipy's bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from geotune.bench.statistics import (
    draw,
    estimate,
    interval,
    of_units,
    over_seeds,
    pareto,
    redrawn,
    times,
    verdict,
)
from geotune.tasks.parts import Parts
from geotune.tasks.segment import Segment

DRAWS = 20_000


def mean_of(parts: Parts) -> dict[str, float]:
    return {"mean": float(parts.sums["total"] / parts.sums["count"])}


def windows(values: np.ndarray) -> list[Parts]:
    return [Parts({"total": np.asarray(v), "count": np.ones(())}) for v in values]


def scipys(*data: np.ndarray, paired: bool = False) -> tuple[float, float]:
    def statistic(*each: np.ndarray, axis: int = -1) -> np.ndarray:
        return each[0].mean(axis=axis) - (each[1].mean(axis=axis) if len(each) > 1 else 0)

    found = bootstrap(
        data,
        statistic,
        n_resamples=DRAWS,
        method="percentile",
        paired=paired,
        rng=np.random.default_rng(5),
    ).confidence_interval
    return found.low, found.high


def test_windows_drawn_anew_give_scipys_interval() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.2, 40)
    often = times(draw(40, DRAWS, np.random.default_rng(1)))
    ours = interval(redrawn(mean_of, windows(values), often)["mean"], 0.95)
    assert ours == pytest.approx(scipys(values), abs=0.002)


def test_seeds_drawn_anew_give_scipys_interval() -> None:
    by_seed = np.random.default_rng(4).normal(0.6, 0.03, 12)
    drawn = draw(12, DRAWS, np.random.default_rng(1))
    draws = over_seeds(np.repeat(by_seed[:, None], DRAWS, axis=1), drawn)
    found = estimate(by_seed, draws, 0.95)
    assert (found.low, found.high) == pytest.approx(scipys(by_seed), abs=0.001)
    assert found.mean == pytest.approx(by_seed.mean())
    assert found.spread == pytest.approx(by_seed.std(ddof=1)) and found.seeds == 12


def test_a_paired_difference_has_scipys_interval_and_is_narrower_than_an_unpaired_one() -> None:
    rng = np.random.default_rng(3)
    hard = rng.normal(0.5, 0.2, 50)
    one, other = hard + rng.normal(0.02, 0.02, 50), hard + rng.normal(0, 0.02, 50)
    often = times(draw(50, DRAWS, np.random.default_rng(1)))
    draws = [redrawn(mean_of, windows(values), often)["mean"] for values in (one, other)]
    ours = interval(draws[0] - draws[1], 0.95)
    assert ours == pytest.approx(scipys(one, other, paired=True), abs=0.0005)
    low, high = scipys(one, other)
    assert high - low > 3 * (ours[1] - ours[0])


def test_seeds_and_windows_together_are_as_wide_as_two_independent_causes() -> None:
    """Of independent seeds and windows the variances of the two bootstraps add up."""
    rng = np.random.default_rng(0)
    seeds, hard = rng.normal(0, 0.05, 8), rng.normal(0.5, 0.2, 60)
    often = times(draw(60, DRAWS, rng))
    by_seed = np.stack([redrawn(mean_of, windows(hard + s), often)["mean"] for s in seeds])
    both = over_seeds(by_seed, draw(8, DRAWS, rng))
    expected = seeds.var() / 8 + hard.var() / 60
    assert both.var() == pytest.approx(expected, rel=0.05)


def test_figures_that_are_no_means_follow_from_the_drawn_windows() -> None:
    """Mean IoU is not the mean of the windows' IoUs: pixels count, wherever they lie."""
    rng = np.random.default_rng(0)
    metrics = Segment(["a", "b"]).metrics()
    parts = [Parts({"confusion": rng.integers(0, 50, (2, 2))}) for _ in range(7)]
    drawn = draw(7, 25, rng)
    found = redrawn(metrics.of, parts, times(drawn))
    for i, chosen in enumerate(drawn):
        expected = metrics.of(Parts.join([parts[j] for j in chosen]))
        assert {name: values[i] for name, values in found.items()} == pytest.approx(expected)


def test_lists_are_drawn_with_their_windows() -> None:
    parts = [Parts(lists={"x": np.arange(n) + 10.0 * n}) for n in (2, 0, 3)]
    often = np.array([[2, 1, 0], [0, 0, 3]])

    def of(parts: Parts) -> dict[str, float]:
        x = parts.lists["x"]
        return {"sum": float(x.sum()), "count": float(len(x))}

    found = redrawn(of, parts, often)
    assert found["sum"].tolist() == [82, 279] and found["count"].tolist() == [4, 9]


def test_windows_of_a_scene_are_one_unit() -> None:
    units = of_units(windows(np.array([1.0, 2.0, 3.0])), ["a", "b", "a"])
    assert [float(unit.sums["total"]) for unit in units] == [4, 2]


def test_what_no_draw_shows_is_left_out() -> None:
    by_seed = np.array([[0.5, math.nan], [0.7, math.nan]])
    draws = over_seeds(by_seed, np.array([[0, 1], [0, 1]]))
    assert draws[0] == pytest.approx(0.6) and math.isnan(draws[1])
    assert interval(draws, 0.95) == pytest.approx((0.6, 0.6))
    assert all(map(math.isnan, interval(np.array([math.nan]), 0.95)))


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.05, "better"),
        (-0.005, 0.05, "not worse by more than the margin"),
        (-0.008, -0.001, "not worse by more than the margin"),
        (-0.05, -0.01, "worse"),
        (-0.05, 0.02, "undecided"),
        (math.nan, math.nan, "undecided"),
    ],
)
def test_verdicts(low: float, high: float, said: str) -> None:
    assert verdict(low, high, margin=0.01) == said


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_the_front_is_what_none_beats(points: list[tuple[int, int]]) -> None:
    costs, gains = zip(*points, strict=True)
    on = pareto(costs, gains)
    assert any(on)
    for (cost, gain), front in zip(points, on, strict=True):
        beaten = any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)
        assert front is not beaten
