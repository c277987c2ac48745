"""Matching of points against trying everything, and the figures of trees."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from geotune.boxes.structures import Detections, GroundTruthObjects
from geotune.metrics.matching import match_points, match_points_by_level
from geotune.metrics.point_metrics import PointMetrics

points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=5)


def array(places: list[tuple[int, int]]) -> np.ndarray:
    return np.array(places, dtype=float).reshape(-1, 2)


def by_trying(found: np.ndarray, truth: np.ndarray, radius: float) -> tuple[int, float]:
    """Most pairs, and of those the least sum of distances."""
    swapped = len(found) > len(truth)
    few, many = (truth, found) if swapped else (found, truth)
    best = (0, 0.0)
    for chosen in itertools.permutations(range(len(many)), len(few)):
        apart = [math.dist(few[i], many[j]) for i, j in enumerate(chosen)]
        near = [d for d in apart if d <= radius]
        best = min(best, (-len(near), sum(near)))
    return -best[0], best[1]


@settings(deadline=None)
@given(points, points, st.sampled_from([0.5, 1.0, 2.5, 9]))
def test_pairs_are_as_many_and_as_close_as_can_be(
    found: list[tuple[int, int]], truth: list[tuple[int, int]], radius: float
) -> None:
    mine, theirs = array(found), array(truth)
    i, j = match_points(mine, theirs, radius)
    apart = np.hypot(*(mine[i] - theirs[j]).T)
    assert len(set(i)) == len(set(j)) == len(i) and (apart <= radius).all()
    count, total = by_trying(mine, theirs, radius)
    assert len(i) == count and apart.sum() == pytest.approx(total)


def test_many_points_are_matched_as_the_published_measure_does() -> None:
    rng = np.random.default_rng(0)
    found, truth = rng.uniform(0, 60, (150, 2)), rng.uniform(0, 60, (130, 2))
    apart = np.hypot(*(found[:, None] - truth).transpose(2, 0, 1))
    cost = np.where(apart <= 3, apart, 1e9)
    i, j = linear_sum_assignment(cost)
    expected = cost[i, j][cost[i, j] < 1e9]
    i, j = match_points(found, truth, 3)
    assert len(i) == len(expected) and apart[i, j].sum() == pytest.approx(expected.sum())


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 4)), max_size=8),
    points,
    st.sampled_from([0.5, 1.0, 2.5, 9]),
)
def test_all_levels_at_once_are_each_by_itself(
    found: list[tuple[int, int, int]], truth: list[tuple[int, int]], radius: float
) -> None:
    mine, theirs = array([(x, y) for x, y, _ in found]), array(truth)
    levels = np.array([level for *_, level in found], dtype=int)
    number, _ = match_points_by_level(mine, levels, theirs, radius, 4)
    for level in range(4):
        assert number[level] == len(match_points(mine[levels > level], theirs, radius)[0])


def test_distances_of_all_levels_at_once_are_those_of_each_by_itself() -> None:
    rng = np.random.default_rng(0)
    found, truth = rng.uniform(0, 60, (150, 2)), rng.uniform(0, 60, (130, 2))
    levels = rng.integers(0, 10, 150)
    number, squares = match_points_by_level(found, levels, truth, 3, 9)
    for level in range(9):
        there = found[levels > level]
        i, j = match_points(there, truth, 3)
        assert number[level] == len(i)
        assert squares[level] == pytest.approx(np.sum((there[i] - truth[j]) ** 2))


def detections(places: list[tuple[float, float]], scores: list[float], kind: int = 0) -> Detections:
    boxes = torch.tensor(places).reshape(-1, 2)
    return Detections(boxes, torch.tensor(scores), torch.full((len(boxes),), kind))


def objects(places: list[tuple[float, float]], kind: int = 0) -> GroundTruthObjects:
    boxes = torch.tensor(places).reshape(-1, 2)
    return GroundTruthObjects(boxes, torch.full((len(boxes),), kind))


def test_figures_by_hand() -> None:
    metrics = PointMetrics(["tree", "palm"], radius_m=3, threshold=0.5)
    found = detections([(10, 10), (11, 10), (50, 50), (80, 80)], [0.9, 0.8, 0.7, 0.3])
    # At 0.6 m a pixel 5 pixels are 3 m.
    metrics.update([found, detections([], [])], [objects([(15, 10), (80, 80)]), objects([(1, 1)])],
                   [0.6, 0.6])  # fmt: skip
    values = metrics.compute()
    assert values["precision"] == pytest.approx(1 / 3) and values["recall"] == pytest.approx(1 / 3)
    assert values["f1"] == values["f1/tree"] == pytest.approx(1 / 3)
    assert values["rmse_m"] == pytest.approx(4 * 0.6)
    assert values["count_bias"] == 0 and values["count_mae"] == 1 and values["count_rmse"] == 1
    assert math.isnan(values["f1/palm"]) and tuple(values) == metrics.metric_names


def test_without_a_threshold_the_best_is_found() -> None:
    metrics = PointMetrics(["tree"], radius_m=2)
    found = detections([(0, 0), (10, 0), (20, 0)], [0.9, 0.72, 0.2])
    metrics.update([found], [objects([(0, 1), (10, 1)])], [1])
    values = metrics.compute()
    assert values["f1"] == 1 and 0.2 < values["threshold"] <= 0.72
    metrics.reset()
    assert math.isnan(metrics.compute()["f1"])


def test_thresholds_lie_close_together() -> None:
    """Scores of a short training differ little, and the number found depends on the threshold."""
    metrics = PointMetrics(["tree"], radius_m=2)
    places = [(float(10 * i), 0.0) for i in range(6)]
    found = detections(places, [0.39, 0.38, 0.37, 0.36, 0.355, 0.351])
    metrics.update([found], [objects(places[:3])], [1])
    values = metrics.compute()
    assert values["f1"] == 1 and values["count_mae"] == 0


def test_classes_are_matched_apart_and_boxes_by_their_centres() -> None:
    metrics = PointMetrics(["tree", "palm"], radius_m=2, threshold=0.5)
    box = Detections(torch.tensor([[4.0, 4, 6, 8]]), torch.ones(1), torch.tensor([1]))
    metrics.update([box], [objects([(5, 6)], kind=0)], [1])
    metrics.update([box], [objects([(5, 6)], kind=1)], [1])
    values = metrics.compute()
    assert values["f1/tree"] == 0 and values["f1/palm"] == pytest.approx(2 / 3)
    assert values["rmse_m"] == 0
