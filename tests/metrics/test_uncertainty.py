"""The jackknife, and t intervals, compared with scipy's."""

import math

import numpy as np
import pytest
from scipy import stats

from geotune.metrics.state import MetricState
from geotune.metrics.uncertainty import (
    Variance,
    effective_units,
    half_width,
    influences,
    variance_over_units,
)
from helpers.components import make_task
from helpers.units import mean_of, units_of


def test_interval_of_a_mean_equals_scipys() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.2, 40)
    influence = influences(mean_of, units_of(values))["mean"]
    assert influence == pytest.approx(values - values.mean())
    half = half_width([variance_over_units(influence, np.array(40.0))], 0.9)
    expected = stats.t.interval(0.9, 39, values.mean(), stats.sem(values))
    assert values.mean() + half == pytest.approx(expected[1])


def test_influences_of_a_ratio_follow_its_slope() -> None:
    """For many units, the influence on sum(a) / sum(b) is (a - ratio * b) / mean(b)."""
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0, 1, 500), rng.uniform(1, 2, 500)
    states = [
        MetricState({"a": np.asarray(x), "b": np.asarray(y)}) for x, y in zip(a, b, strict=True)
    ]
    influence = influences(lambda s: {"r": float(s.sums["a"] / s.sums["b"])}, states)["r"]
    assert influence == pytest.approx((a - a.sum() / b.sum() * b) / b.mean(), abs=0.01)
    assert influence.sum() == pytest.approx(0, abs=1e-9)


def test_every_metric_of_a_task_is_computed_without_each_unit() -> None:
    rng = np.random.default_rng(0)
    metrics = make_task("segment", classes=["a", "b"]).metrics()
    states = [MetricState({"confusion": rng.integers(1, 50, (2, 2))}) for _ in range(7)]
    result = influences(metrics.compute_from, states)
    without = [
        metrics.compute_from(MetricState.merge(states[:i] + states[i + 1 :])) for i in range(7)
    ]
    assert result.keys() == without[0].keys()
    miou = np.array([each["miou"] for each in without])
    assert result["miou"] == pytest.approx(6 * (miou.mean() - miou))


def test_lists_are_left_out_with_their_unit() -> None:
    states = [MetricState(lists={"x": np.arange(n) + 10.0 * n}) for n in (2, 0, 3)]
    result = influences(lambda state: {"sum": float(state.lists["x"].sum())}, states)["sum"]
    left_out = np.array([93.0, 134.0, 41.0])
    assert result == pytest.approx(2 * (left_out.mean() - left_out))


def test_metric_that_needs_one_unit_has_no_influences() -> None:
    def compute(state: MetricState) -> dict[str, float]:
        total = float(state.sums["n"])
        return {"ratio": 1 / total if total else math.nan}

    states = [MetricState({"n": np.asarray(n)}) for n in (3.0, 0.0, 0.0)]
    assert np.isnan(influences(compute, states)["ratio"]).all()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        (np.ones(40), 40),
        (np.repeat([1.0, 0.0], [8, 32]), 8),
        (np.repeat([4.0, 1.0], [2, 18]), 26**2 / 50),
        (np.arange(1.0, 41.0), 820**2 / 22140),
    ],
)
@pytest.mark.parametrize(("methods", "seeds"), [(2, 3), (2, 10), (1, 5)])
def test_effective_units_are_those_of_kish(
    sizes: np.ndarray, expected: float, methods: int, seeds: int
) -> None:
    rng = np.random.default_rng(0)
    units = rng.normal(size=(1000, methods, 1, len(sizes)))
    noise = rng.normal(size=(1000, methods, seeds, len(sizes)))
    found = effective_units(sizes * (units + noise))
    assert found.shape == (1000,) and np.median(found) == pytest.approx(expected, rel=0.15)


def test_effective_units_of_runs_without_differences() -> None:
    assert effective_units(np.zeros((2, 3, 7))) == 7
    same = np.broadcast_to(np.repeat([1.0, -1.0], 4), (2, 3, 8))
    assert effective_units(same) == 8


@pytest.mark.parametrize("ratio", [0.0, 0.1, 1.0, 10.0])
def test_intervals_hold_however_the_variances_relate(ratio: float) -> None:
    """Two independent normal sources, one with a single degree of freedom."""
    rng = np.random.default_rng(0)
    true, df, count = np.array([1.0, ratio]), np.array([1, 30]), 20_000
    estimated = true * rng.chisquare(df, (count, 2)) / df
    means = rng.normal(0, math.sqrt(true.sum()), count)
    parts = [Variance(estimated[:, i], np.full(count, float(df[i]))) for i in range(2)]
    missed = np.mean(np.abs(means) > half_width(parts, 0.95))
    assert 0.01 < missed < 0.05 + 3 * math.sqrt(0.05 * 0.95 / count)
