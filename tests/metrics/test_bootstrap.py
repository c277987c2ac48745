"""Bootstrap intervals compared with scipy's."""

import numpy as np
import pytest

from geotune.metrics.bootstrap import (
    bootstrap,
    group_by,
    multiplicities,
    percentile_interval,
    resample_indices,
)
from geotune.metrics.state import MetricState
from helpers.components import make_task
from helpers.resampling import DRAWS, mean_of, scipy_interval, windows


def test_interval_equals_scipys() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.2, 40)
    multiplicity = multiplicities(resample_indices(40, DRAWS, np.random.default_rng(1)))
    ours = percentile_interval(bootstrap(mean_of, windows(values), multiplicity)["mean"], 0.95)
    assert ours == pytest.approx(scipy_interval(values), abs=0.002)


def test_paired_interval_equals_scipys_and_is_narrower_than_unpaired() -> None:
    rng = np.random.default_rng(3)
    hard = rng.normal(0.5, 0.2, 50)
    one, other = hard + rng.normal(0.02, 0.02, 50), hard + rng.normal(0, 0.02, 50)
    multiplicity = multiplicities(resample_indices(50, DRAWS, np.random.default_rng(1)))
    draws = [bootstrap(mean_of, windows(values), multiplicity)["mean"] for values in (one, other)]
    ours = percentile_interval(draws[0] - draws[1], 0.95)
    assert ours == pytest.approx(scipy_interval(one, other, paired=True), abs=0.0005)
    low, high = scipy_interval(one, other)
    assert high - low > 3 * (ours[1] - ours[0])


def test_metrics_are_computed_from_the_pooled_windows() -> None:
    """Mean IoU is computed from all pixels and is not the mean of the windows' IoUs."""
    rng = np.random.default_rng(0)
    metrics = make_task("segment", classes=["a", "b"]).metrics()
    states = [MetricState({"confusion": rng.integers(0, 50, (2, 2))}) for _ in range(7)]
    indices = resample_indices(7, 25, rng)
    results = bootstrap(metrics.compute_from, states, multiplicities(indices))
    for i, row in enumerate(indices):
        expected = metrics.compute_from(MetricState.merge([states[j] for j in row]))
        assert {name: values[i] for name, values in results.items()} == pytest.approx(expected)


def test_lists_are_resampled_with_their_windows() -> None:
    states = [MetricState(lists={"x": np.arange(n) + 10.0 * n}) for n in (2, 0, 3)]
    multiplicity = np.array([[2, 1, 0], [0, 0, 3]])

    def compute(state: MetricState) -> dict[str, float]:
        x = state.lists["x"]
        return {"sum": float(x.sum()), "count": float(len(x))}

    results = bootstrap(compute, states, multiplicity)
    assert results["sum"].tolist() == [82, 279] and results["count"].tolist() == [4, 9]


def test_group_by_merges_windows_of_a_scene() -> None:
    units = group_by(windows(np.array([1.0, 2.0, 3.0])), ["a", "b", "a"])
    assert [float(unit.sums["total"]) for unit in units] == [4, 2]
