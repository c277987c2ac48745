"""Point matching compared with exhaustive search, and point metrics by hand."""

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


def array(coordinates: list[tuple[int, int]]) -> np.ndarray:
    return np.array(coordinates, dtype=float).reshape(-1, 2)


def exhaustive_match(predicted: np.ndarray, truth: np.ndarray, radius: float) -> tuple[int, float]:
    """Maximum number of pairs, and the minimum sum of distances among those."""
    swapped = len(predicted) > len(truth)
    few, many = (truth, predicted) if swapped else (predicted, truth)
    best = (0, 0.0)
    for chosen in itertools.permutations(range(len(many)), len(few)):
        distances = [math.dist(few[i], many[j]) for i, j in enumerate(chosen)]
        near = [d for d in distances if d <= radius]
        best = min(best, (-len(near), sum(near)))
    return -best[0], best[1]


@settings(deadline=None)
@given(points, points, st.sampled_from([0.5, 1.0, 2.5, 9]))
def test_matching_equals_exhaustive_search(
    predicted: list[tuple[int, int]], truth: list[tuple[int, int]], radius: float
) -> None:
    mine, theirs = array(predicted), array(truth)
    i, j = match_points(mine, theirs, radius)
    distances = np.hypot(*(mine[i] - theirs[j]).T)
    assert len(set(i)) == len(set(j)) == len(i) and (distances <= radius).all()
    count, total = exhaustive_match(mine, theirs, radius)
    assert len(i) == count and distances.sum() == pytest.approx(total)


def test_matching_equals_a_global_assignment() -> None:
    rng = np.random.default_rng(0)
    predicted, truth = rng.uniform(0, 60, (150, 2)), rng.uniform(0, 60, (130, 2))
    distances = np.hypot(*(predicted[:, None] - truth).transpose(2, 0, 1))
    cost = np.where(distances <= 3, distances, 1e9)
    i, j = linear_sum_assignment(cost)
    expected = cost[i, j][cost[i, j] < 1e9]
    i, j = match_points(predicted, truth, 3)
    assert len(i) == len(expected) and distances[i, j].sum() == pytest.approx(expected.sum())


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(0, 4)), max_size=8),
    points,
    st.sampled_from([0.5, 1.0, 2.5, 9]),
)
def test_number_of_pairs_by_level_equals_matching_each_level(
    predicted: list[tuple[int, int, int]], truth: list[tuple[int, int]], radius: float
) -> None:
    mine, theirs = array([(x, y) for x, y, _ in predicted]), array(truth)
    levels = np.array([level for *_, level in predicted], dtype=int)
    number, _ = match_points_by_level(mine, levels, theirs, radius, 4)
    for level in range(4):
        assert number[level] == len(match_points(mine[levels > level], theirs, radius)[0])


def test_distances_by_level_equal_matching_each_level() -> None:
    rng = np.random.default_rng(0)
    predicted, truth = rng.uniform(0, 60, (150, 2)), rng.uniform(0, 60, (130, 2))
    levels = rng.integers(0, 10, 150)
    number, squares = match_points_by_level(predicted, levels, truth, 3, 9)
    for level in range(9):
        active = predicted[levels > level]
        i, j = match_points(active, truth, 3)
        assert number[level] == len(i)
        assert squares[level] == pytest.approx(np.sum((active[i] - truth[j]) ** 2))


def detections(
    coordinates: list[tuple[float, float]], scores: list[float], kind: int = 0
) -> Detections:
    boxes = torch.tensor(coordinates).reshape(-1, 2)
    return Detections(boxes, torch.tensor(scores), torch.full((len(boxes),), kind))


def objects(coordinates: list[tuple[float, float]], kind: int = 0) -> GroundTruthObjects:
    boxes = torch.tensor(coordinates).reshape(-1, 2)
    return GroundTruthObjects(boxes, torch.full((len(boxes),), kind))


def test_metrics_by_hand() -> None:
    metrics = PointMetrics(["tree", "palm"], radius_m=3, threshold=0.5)
    predicted = detections([(10, 10), (11, 10), (50, 50), (80, 80)], [0.9, 0.8, 0.7, 0.3])
    # With 0.6 m pixels, 5 pixels are 3 m.
    truth = [objects([(15, 10), (80, 80)]), objects([(1, 1)])]
    metrics.update([predicted, detections([], [])], truth, [0.6, 0.6])
    values = metrics.compute()
    assert values["precision"] == pytest.approx(1 / 3) and values["recall"] == pytest.approx(1 / 3)
    assert values["f1"] == values["f1/tree"] == pytest.approx(1 / 3)
    assert values["rmse_m"] == pytest.approx(4 * 0.6)
    assert values["count_bias"] == 0 and values["count_mae"] == 1 and values["count_rmse"] == 1
    assert math.isnan(values["f1/palm"]) and tuple(values) == metrics.metric_names


def test_best_threshold_is_chosen_by_default() -> None:
    metrics = PointMetrics(["tree"], radius_m=2)
    predicted = detections([(0, 0), (10, 0), (20, 0)], [0.9, 0.72, 0.2])
    metrics.update([predicted], [objects([(0, 1), (10, 1)])], [1])
    values = metrics.compute()
    assert values["f1"] == 1 and 0.2 < values["threshold"] <= 0.72
    metrics.reset()
    assert math.isnan(metrics.compute()["f1"])


def test_candidate_thresholds_separate_close_scores() -> None:
    """After a short training scores differ little."""
    metrics = PointMetrics(["tree"], radius_m=2)
    coordinates = [(float(10 * i), 0.0) for i in range(6)]
    predicted = detections(coordinates, [0.39, 0.38, 0.37, 0.36, 0.355, 0.351])
    metrics.update([predicted], [objects(coordinates[:3])], [1])
    values = metrics.compute()
    assert values["f1"] == 1 and values["count_mae"] == 0


def test_classes_are_matched_separately_and_boxes_by_their_centres() -> None:
    metrics = PointMetrics(["tree", "palm"], radius_m=2, threshold=0.5)
    box = Detections(torch.tensor([[4.0, 4, 6, 8]]), torch.ones(1), torch.tensor([1]))
    metrics.update([box], [objects([(5, 6)], kind=0)], [1])
    metrics.update([box], [objects([(5, 6)], kind=1)], [1])
    values = metrics.compute()
    assert values["f1/tree"] == 0 and values["f1/palm"] == pytest.approx(2 / 3)
    assert values["rmse_m"] == 0
