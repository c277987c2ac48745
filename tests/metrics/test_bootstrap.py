"""Intervals of windows drawn anew, held against scipy's bootstrap."""

import numpy as np
import pytest

from geotune.metrics.bootstrap import (
    bootstrap,
    multiplicities,
    of_units,
    percentile_interval,
    resample_indices,
)
from geotune.metrics.state import MetricState
from geotune.tasks.segment import Segment
from helpers.resampling import DRAWS, mean_of, scipys, windows


def test_windows_drawn_anew_give_scipys_interval() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.2, 40)
    often = multiplicities(resample_indices(40, DRAWS, np.random.default_rng(1)))
    ours = percentile_interval(bootstrap(mean_of, windows(values), often)["mean"], 0.95)
    assert ours == pytest.approx(scipys(values), abs=0.002)


def test_a_paired_difference_has_scipys_interval_and_is_narrower_than_an_unpaired_one() -> None:
    rng = np.random.default_rng(3)
    hard = rng.normal(0.5, 0.2, 50)
    one, other = hard + rng.normal(0.02, 0.02, 50), hard + rng.normal(0, 0.02, 50)
    often = multiplicities(resample_indices(50, DRAWS, np.random.default_rng(1)))
    draws = [bootstrap(mean_of, windows(values), often)["mean"] for values in (one, other)]
    ours = percentile_interval(draws[0] - draws[1], 0.95)
    assert ours == pytest.approx(scipys(one, other, paired=True), abs=0.0005)
    low, high = scipys(one, other)
    assert high - low > 3 * (ours[1] - ours[0])


def test_figures_that_are_no_means_follow_from_the_drawn_windows() -> None:
    """Mean IoU is not the mean of the windows' IoUs: pixels count, wherever they lie."""
    rng = np.random.default_rng(0)
    metrics = Segment(["a", "b"]).metrics()
    parts = [MetricState({"confusion": rng.integers(0, 50, (2, 2))}) for _ in range(7)]
    drawn = resample_indices(7, 25, rng)
    found = bootstrap(metrics.of, parts, multiplicities(drawn))
    for i, chosen in enumerate(drawn):
        expected = metrics.of(MetricState.join([parts[j] for j in chosen]))
        assert {name: values[i] for name, values in found.items()} == pytest.approx(expected)


def test_lists_are_drawn_with_their_windows() -> None:
    parts = [MetricState(lists={"x": np.arange(n) + 10.0 * n}) for n in (2, 0, 3)]
    often = np.array([[2, 1, 0], [0, 0, 3]])

    def of(parts: MetricState) -> dict[str, float]:
        x = parts.lists["x"]
        return {"sum": float(x.sum()), "count": float(len(x))}

    found = bootstrap(of, parts, often)
    assert found["sum"].tolist() == [82, 279] and found["count"].tolist() == [4, 9]


def test_windows_of_a_scene_are_one_unit() -> None:
    units = of_units(windows(np.array([1.0, 2.0, 3.0])), ["a", "b", "a"])
    assert [float(unit.sums["total"]) for unit in units] == [4, 2]
