"""Calibration of intervals and verdicts, and the rules that lead to them."""

from __future__ import annotations

import importlib.util
import math
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from geotune.bench.statistics import (
    Difference,
    Sample,
    combine,
    difference,
    estimate,
    levels,
    pareto,
    verdict,
)

TABLES = 2000
ERROR = 3 * math.sqrt(0.05 * 0.95 / TABLES)
"""Three standard errors of a simulated rate of 5 %: a true rate of 10 % fails."""


@pytest.fixture(scope="module")
def calibration() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "calibration.py"
    spec = importlib.util.spec_from_file_location("calibration", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["calibration"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("regime", ["seeds", "units", "both", "interaction"])
@pytest.mark.parametrize(
    ("seeds", "methods", "units"), [(2, 2, 6), (2, 18, 20), (3, 5, 20), (5, 10, 6), (10, 2, 20)]
)
def test_tables_of_equally_good_methods_are_rarely_wrong(
    calibration: ModuleType, regime: str, seeds: int, methods: int, units: int
) -> None:
    row = calibration.calibrate(calibration.Scenario(methods, seeds, units, regime), TABLES)
    assert row["false"] <= 0.05 + ERROR


def test_exact_where_one_source_dominates(calibration: ModuleType) -> None:
    """The intervals are not wide for no reason: the error rate is the stated one."""
    calibration.REGIMES["only seeds"] = (1.0, 0.0, 0.0)
    calibration.REGIMES["only units"] = (0.0, 1.0, 0.0)
    for regime in ("only seeds", "only units"):
        row = calibration.calibrate(calibration.Scenario(2, 4, 20, regime), TABLES)
        assert row["false"] == pytest.approx(0.05, abs=ERROR), regime


@pytest.mark.parametrize(
    "harder", [{"spread": 0.7}, {"sizes": 0.7}, {"sizes": 1.5}, {"skewed": True}]
)
def test_unequal_methods_and_units_are_rarely_wrong(
    calibration: ModuleType, harder: dict[str, float]
) -> None:
    for methods, seeds, units in ((2, 10, 6), (10, 10, 12)):
        scenario = calibration.Scenario(methods, seeds, units, "units", **harder)
        assert calibration.calibrate(scenario, TABLES)["false"] <= 0.05 + ERROR


def test_clear_differences_are_found(calibration: ModuleType) -> None:
    for regime in ("seeds", "units"):
        for seeds, bound in ((5, 4.0), (10, 3.5)):
            row = calibration.calibrate(calibration.Scenario(2, seeds, 20, regime), TABLES)
            assert 2.8 < row["detectable"] < bound  # 2.8 if the variance were known


@pytest.mark.parametrize("methods", [2, 10])
def test_inferior_methods_are_rarely_called_not_inferior(
    calibration: ModuleType, methods: int
) -> None:
    for regime in ("seeds", "units"):
        scenario = calibration.Scenario(methods, 5, 20, regime)
        assert calibration.false_claims_at_the_margin(scenario, TABLES) <= 0.025 + ERROR


def test_iou_of_unequal_scenes_is_rarely_wrong(calibration: ModuleType) -> None:
    assert calibration.of_iou(10, 2, 3, tables=200)["false"] <= 0.05 + 3 * math.sqrt(0.0475 / 200)


def test_one_scene_allows_no_verdict(calibration: ModuleType) -> None:
    """Neither windows nor blocks of one scene tell how another scene would turn out."""
    row = calibration.in_one_scene(12, reach=4, nugget=0.5, draws=60)
    assert row["with_verdict"] == 0 and row["missed_windows"] > 0.3


@pytest.mark.parametrize("share", [0, 1])
def test_held_out_regions_with_overlapping_training_data_are_rarely_wrong(
    calibration: ModuleType, share: float
) -> None:
    for regions in (6, 12):
        assert calibration.held_out(regions, share / regions, TABLES)["false"] <= 0.05 + ERROR


@pytest.mark.parametrize("folds", [1, 2, 5])
def test_pooled_folds_are_rarely_wrong(calibration: ModuleType, folds: int) -> None:
    for regime, units in (("seeds", 20), ("units", 10), ("both", 20), ("interaction", 10)):
        assert calibration.in_folds(folds, units, regime, 0, TABLES)["false"] <= 0.05 + ERROR


def test_verdicts_do_not_cover_the_choice_of_training_data(calibration: ModuleType) -> None:
    """As docs/explanation/statistics.md says: many test units cannot make up for two folds."""
    assert calibration.in_folds(2, 100, "units", 0.1, TABLES)["false"] > 0.3


def test_combined_data_sets_are_rarely_wrong(calibration: ModuleType) -> None:
    for between, ratio in ((0.0, 0.8), (2.0, 0.0)):
        row = calibration.over_data_sets(5, between, ratio, TABLES, weighted=False)
        assert row["false"] <= 0.05 + ERROR


def test_interval_over_seeds_equals_scipys() -> None:
    by_run = np.array([0.61, 0.58, 0.66, 0.6])
    result = estimate(Sample(by_run), 0.95)
    expected = stats.t.interval(0.95, 3, by_run.mean(), stats.sem(by_run))
    assert (result.low, result.high) == pytest.approx(expected)
    assert (result.mean, result.runs) == (pytest.approx(by_run.mean()), 4)
    assert result.spread == pytest.approx(by_run.std(ddof=1))


def test_both_sources_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    by_run, influence = rng.normal(0.6, 0.02, 5), rng.normal(0, 0.1, (1, 30)).repeat(5, 0)
    effective = np.array(25.0)
    seeds, units = Sample(by_run), Sample(by_run[:1], influence[:1], effective)
    both = Sample(by_run, influence, effective)
    squares = [float(each.half_width(0.95)) ** 2 for each in (seeds, units, both)]
    assert squares[2] == pytest.approx(squares[0] + squares[1])


def test_what_two_methods_share_cancels() -> None:
    rng = np.random.default_rng(0)
    seeds, units = rng.normal(0, 1, 5), rng.normal(0, 1, (5, 30))
    reference = Sample(0.5 + seeds, units)
    better = Sample(0.6 + seeds, units)
    result = difference(better, reference, 0.95, 0.0)
    assert result.mean == pytest.approx(0.1) and result.verdict == "better"
    assert result.relative == pytest.approx(0.1 / reference.mean)


def test_held_out_regions_pay_for_shared_training_data() -> None:
    by_run = np.array([0.1, 0.2, 0.4, 0.3])
    apart, overlapping = (Sample(by_run, held_out=each).half_width(0.95) for each in (False, True))
    assert overlapping == pytest.approx(apart * math.sqrt(1 + 4 / 3))


def test_missing_metrics_are_skipped() -> None:
    result = estimate(Sample(np.array([0.5, math.nan, 0.7])), 0.95)
    assert result.mean == pytest.approx(0.6) and result.runs == 3
    assert math.isnan(estimate(Sample(np.array([math.nan])), 0.95).mean)
    assert math.isnan(estimate(Sample(np.array([0.5])), 0.95).low)


def test_reason_replaces_the_verdict() -> None:
    better, reference = Sample(np.array([0.9, 0.91])), Sample(np.array([0.1, 0.11]))
    assert difference(better, reference, 0.95, 0.02).verdict == "better"
    result = difference(better, reference, 0.95, 0.02, "one test scene")
    assert str(result) == "no verdict: one test scene" and result.low > 0
    one = np.eye(20)[:1] * 5 - 0.25
    outweighed = Sample(np.array([0.9, 0.91]), np.concatenate([one, one]))
    result = difference(outweighed, Sample(reference.by_run, 0 * outweighed.influence), 0.95, 0.02)
    assert str(result) == "no verdict: few test units outweigh the others"
    unknown = Sample(np.array([0.9, 0.91]), np.full((2, 8), math.nan))
    assert difference(unknown, unknown, 0.95, 0.02).verdict == "no verdict"


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.02, 0.05, "better"),
        (0.002, 0.05, "better"),
        (0.002, 0.008, "equivalent"),
        (-0.005, 0.005, "equivalent"),
        (-0.008, -0.001, "equivalent"),
        (-0.005, 0.05, "not inferior"),
        (-0.05, -0.01, "worse"),
        (-0.05, -0.001, "worse"),
        (-0.05, 0.02, "no difference shown"),
    ],
)
def test_verdicts(low: float, high: float, expected: str) -> None:
    assert verdict(low, high, margin=0.01) == expected


def test_comparisons_share_the_error_rate() -> None:
    assert levels(0.95, ["a"], []) == {"a": 0.95}
    assert levels(0.95, [*"abcde"], []) == pytest.approx(dict.fromkeys("abcde", 0.99))
    shared = levels(0.95, [*"abc"], ["b"])
    assert shared == pytest.approx({"a": 0.9875, "b": 0.975, "c": 0.9875})


def test_data_sets_are_the_units_of_a_combination() -> None:
    effects = np.array([0.02, 0.05, 0.03, 0.04])
    each = [Difference(0, 0, 0, "no verdict", "one test scene", effect) for effect in effects]
    result = combine(each, 0.95, 0.0)
    expected = stats.t.interval(0.95, 3, effects.mean(), stats.sem(effects))
    assert (result.low, result.high) == pytest.approx(expected) and result.verdict == "better"
    assert str(combine(each[:2], 0.95, 0.0)) == "no verdict: only 2 data sets"
    unknown = replace(each[0], relative=math.nan)
    assert str(combine([*each, unknown], 0.95, 0.0)) == "no verdict: a difference is unknown"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1))
def test_pareto_front(points: list[tuple[int, int]]) -> None:
    costs, gains = zip(*points, strict=True)
    on = pareto(costs, gains)
    assert any(on)
    for (cost, gain), front in zip(points, on, strict=True):
        beaten = any(c <= cost and g >= gain and (c, g) != (cost, gain) for c, g in points)
        assert front is not beaten
