"""NMS compared with a plain implementation on shapely areas, and with torchvision."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import shapely
import torch
import torchvision.ops

from geotune.boxes import nms as module
from geotune.boxes.candidate_pairs import BoxIndex
from geotune.boxes.nms import nms
from geotune.boxes.oriented import hull
from geotune.boxes.polygons import to_polygons
from helpers.errors import raises

Make = Callable[..., np.ndarray]


def plain_nms(
    boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray, limit: float
) -> list[int]:
    shapes = to_polygons(boxes)
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        rivals = [k for k in kept if classes[k] == classes[i]]
        shared = shapely.area(shapely.intersection(shapes[i], shapes[rivals]))
        either = shapely.area(shapes[i]) + shapely.area(shapes[rivals]) - shared
        if not (shared > limit * either).any():
            kept.append(int(i))
    return kept


def make_case(random_boxes: Make, n: int, extent: float) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(n)
    return random_boxes(n, n, extent), rng.random(n).round(2), rng.integers(3, size=n)


@pytest.mark.parametrize("extent", [0, 60, 600])
@pytest.mark.parametrize("limit", [0.1, 0.5])
def test_nms_equals_a_plain_implementation(random_boxes: Make, extent: float, limit: float) -> None:
    boxes, scores, classes = make_case(random_boxes, 300, extent)
    expected = plain_nms(boxes, scores, classes, limit)
    tensors = [torch.from_numpy(x) for x in (boxes, scores, classes)]
    assert nms(tensors[0], tensors[1], limit, tensors[2]).tolist() == expected
    assert nms(tensors[0], tensors[1], limit).tolist() == plain_nms(
        boxes, scores, 0 * classes, limit
    )


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_far_coordinates_and_new_indexes_change_nothing(
    monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Coordinates of a projection, in float32: hulls must not be rounded more than the boxes."""
    monkeypatch.setattr(module, "INDEX_SHARE", share)
    rng = np.random.default_rng(0)
    centres, angles = rng.uniform(5e6, 5e6 + 30, (400, 2)), rng.uniform(0, 3, (400, 1))
    far = np.concatenate([centres, rng.uniform(1, 4, (400, 2)), angles], 1).astype(np.float32)
    scores, classes = rng.random(400), np.zeros(400, dtype=np.int64)
    expected = plain_nms(far.astype(np.float64), scores, classes, 0.1)
    tensors = [torch.from_numpy(x) for x in (far, scores, classes)]
    assert nms(tensors[0], tensors[1], 0.1, tensors[2]).tolist() == expected


@pytest.mark.parametrize("first", [1, 7, 10_000])
def test_result_does_not_depend_on_block_size_or_index(
    random_boxes: Make, monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    boxes, scores, classes = map(torch.from_numpy, make_case(random_boxes, 500, 200))
    expected = nms(boxes, scores, 0.3, classes).tolist()
    monkeypatch.setattr(module, "FIRST_BLOCK", first)
    monkeypatch.setattr(module, "PAIRS_PER_BLOCK", 50 * first)
    assert nms(boxes, scores, 0.3, classes).tolist() == expected

    class BruteForce(BoxIndex):
        def __init__(self, hulls: torch.Tensor) -> None:
            super().__init__(hulls)
            self.tree = None

    monkeypatch.setattr(module, "BoxIndex", BruteForce)
    assert nms(boxes, scores, 0.3, classes).tolist() == expected


def test_nms_of_horizontal_boxes_equals_torchvisions(
    random_boxes: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes, _, classes = make_case(random_boxes, 600, 300)
    scores = torch.rand(600, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flat, kinds = torch.from_numpy(hull(boxes)), torch.from_numpy(classes)
    expected = torchvision.ops.batched_nms(flat - flat.min(), scores, kinds, 0.3).tolist()
    assert nms(flat, scores, 0.3, kinds).tolist() == expected
    # Also far away and with negative coordinates.
    assert nms(flat - 1e6, scores, 0.3, kinds).tolist() == expected
    monkeypatch.setattr(module, "BRUTE_FORCE_LIMIT", 0)
    assert nms(flat, scores, 0.3, kinds).tolist() == expected


def test_near_duplicates_are_reduced_to_one(random_boxes: Make) -> None:
    rng = np.random.default_rng(0)
    boxes = np.repeat(random_boxes(20, extent=3000), 100, 0)
    boxes += rng.normal(0, 1e-4, boxes.shape) * [1, 1, 0, 0, 0.01]
    scores = torch.from_numpy(rng.random(len(boxes)))
    assert len(nms(torch.from_numpy(boxes), scores, 0.5)) == 20


def test_suppressed_boxes_do_not_suppress_others() -> None:
    # Each overlaps the next by more than the threshold, but not the one after it.
    boxes = torch.tensor([[2.0 * k, 0, 10, 4, 0] for k in range(7)])
    scores = torch.linspace(1, 0, 7)
    assert nms(boxes, scores, 0.5).tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize("columns", [4, 5])
def test_nms_of_zero_and_one_boxes(columns: int) -> None:
    assert nms(torch.zeros(0, columns), torch.zeros(0), 0.5).tolist() == []
    one = torch.tensor([[0.0, 0, 2, 1, 0]])[:, :columns]
    assert nms(one, torch.ones(1), 0.5, torch.zeros(1, dtype=torch.int64)).tolist() == [0]


def test_non_finite_boxes_are_an_error() -> None:
    boxes = torch.tensor([[0, 0, 2, 1, math.nan]])
    with raises("boxes-not-finite"):
        nms(boxes, torch.ones(1), 0.5)


@pytest.mark.slow
def test_nms_of_a_million_boxes() -> None:
    rng = np.random.default_rng(0)
    n = 1_000_000
    boxes = np.hstack([rng.uniform(0, 50_000, (n, 2)), rng.uniform(5, 40, (n, 2)),
                       rng.uniform(-1, 1, (n, 1))])  # fmt: skip
    kept = nms(torch.from_numpy(boxes).float(), torch.from_numpy(rng.random(n)), 0.3)
    assert 0.8 * n < len(kept) < n
