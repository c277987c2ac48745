"""IoU compared with shapely and torchvision, and cases where torchvision's operator fails."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import shapely
import torch
import torchvision.ops
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from geotune.boxes.candidate_pairs import BoxIndex
from geotune.boxes.intersection import intersection
from geotune.boxes.iou import paired_iou, pairwise_iou
from geotune.boxes.oriented import as_oriented, canonical, hull
from geotune.boxes.polygons import to_polygons

Boxes = np.ndarray
Make = Callable[..., Boxes]


def by_shapely(first: Boxes, second: Boxes) -> Boxes:
    a, b = to_polygons(first), to_polygons(second)
    shared = shapely.area(shapely.intersection(a, b))
    return shared / (shapely.area(a) + shapely.area(b) - shared)


def iou_of_rows(first: Tensor, second: Tensor) -> Tensor:
    each = torch.arange(len(first))
    return paired_iou(first, second, each, each)


def test_iou_equals_shapelys_on_ten_thousand_random_pairs(random_boxes: Make) -> None:
    first, second = random_boxes(10_000, 0), random_boxes(10_000, 1)
    expected = by_shapely(first, second)
    assert (expected > 0).mean() > 0.4 and (expected > 0.5).sum() > 50
    ious = iou_of_rows(torch.from_numpy(first), torch.from_numpy(second))
    assert np.abs(ious.numpy() - expected).max() < 1e-12
    single = iou_of_rows(torch.from_numpy(first).float(), torch.from_numpy(second).float())
    assert np.abs(single.numpy() - expected).max() < 1e-5


def test_iou_equals_torchvisions_on_random_pairs(random_boxes: Make) -> None:
    first, second = (torch.from_numpy(random_boxes(100, seed)) for seed in (0, 1))
    degrees = torch.tensor([1, 1, 1, 1, -180 / math.pi])
    expected = torchvision.ops.box_iou(first * degrees, second * degrees, fmt="cxcywhr")
    assert torch.allclose(pairwise_iou(first, second).float(), expected, atol=1e-5)


def test_chunk_size_does_not_change_the_result(
    random_boxes: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (torch.from_numpy(random_boxes(n, n)) for n in (31, 17))
    whole = pairwise_iou(first, second)
    monkeypatch.setattr("geotune.boxes.iou.PAIRS_PER_CHUNK", 20)
    assert torch.equal(pairwise_iou(first, second), whole)
    i, j = torch.meshgrid(torch.arange(31), torch.arange(17), indexing="ij")
    assert torch.allclose(paired_iou(first, second, i.flatten(), j.flatten()), whole.flatten())


@pytest.mark.parametrize("shift", [1e6, 1e8])
def test_precision_far_from_the_origin(random_boxes: Make, shift: float) -> None:
    first, second = (torch.from_numpy(random_boxes(500, seed).round(2)) for seed in (0, 1))
    offset = torch.tensor([shift, shift, 0, 0, 0], dtype=torch.float64)
    far = iou_of_rows(first + offset, second + offset)
    assert torch.allclose(far, iou_of_rows(first, second), atol=1e-6)


sides = st.floats(1e-4, 1e4)
angles = st.one_of(st.sampled_from([k * math.pi / 4 for k in range(-4, 5)]), st.floats(-4, 4))


@settings(deadline=None)
@given(sides, sides, angles, st.floats(-1e3, 1e3), st.floats(0.01, 1))
def test_iou_of_a_box_and_a_part_of_it(
    w: float, h: float, angle: float, x: float, part: float
) -> None:
    whole = canonical(torch.tensor([[x, -x, w, h, angle]], dtype=torch.float64))
    less = whole * torch.tensor([1, 1, part, 1, 1])
    assert iou_of_rows(whole, whole).item() == pytest.approx(1, abs=1e-6)
    assert iou_of_rows(less, whole).item() == pytest.approx(part, rel=1e-6)
    turned = whole + torch.tensor([0, 0, 0, 0, math.pi], dtype=torch.float64)
    assert iou_of_rows(turned, whole).item() == pytest.approx(1, abs=1e-6)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50), sides, sides, angles),
                min_size=2, max_size=2))  # fmt: skip
def test_iou_is_symmetric_and_between_zero_and_one(
    two: list[tuple[float, float, float, float, float]],
) -> None:
    first, second = torch.tensor(two, dtype=torch.float64)[:, None]
    iou = iou_of_rows(first, second).item()
    assert 0 <= iou <= 1 + 1e-9
    assert iou == pytest.approx(iou_of_rows(second, first).item(), abs=1e-6)
    assert 0 <= intersection(first, second).item() <= 1.000001 * (first[0, 2] * first[0, 3])


def test_iou_of_touching_disjoint_and_empty_boxes_is_zero() -> None:
    box = torch.tensor([[0, 0, 2, 2, 0.0], [0, 0, 2, 2, 0], [0, 0, 2, 2, 0], [0, 0, 0, 0, 0]])
    other = torch.tensor([[2, 0, 2, 2, 0.0], [9, 9, 2, 2, 1], [0, 0, 2, 0, 0.3], [0, 0, 0, 0, 0]])
    assert iou_of_rows(box, other).tolist() == [0, 0, 0, 0]


def test_iou_of_nearly_equal_boxes_is_nearly_one(random_boxes: Make) -> None:
    first = torch.from_numpy(random_boxes(2000)).clamp(min=-60)
    jitter = torch.randn(2000, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    second = first + 1e-4 * jitter * torch.tensor([1, 1, 0, 0, 1])
    assert iou_of_rows(first, second).min() > 0.99


def test_iou_of_horizontal_boxes_equals_that_of_their_oriented_form(random_boxes: Make) -> None:
    first, second = (torch.from_numpy(hull(random_boxes(40, seed))) for seed in (0, 1))
    flat = pairwise_iou(first, second)
    assert torch.allclose(flat, pairwise_iou(as_oriented(first), as_oriented(second)))
    assert torch.allclose(flat.diagonal(), iou_of_rows(first, second))
    assert torch.allclose(flat, pairwise_iou(first, as_oriented(second)))
    assert pairwise_iou(first[:0], second).shape == (0, 40)
    assert not pairwise_iou(torch.zeros(1, 4), torch.zeros(1, 4)).any()


def test_box_index_by_tree_equals_brute_force(
    random_boxes: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("geotune.boxes.candidate_pairs.COMPARISONS_PER_CHUNK", 1000)
    hulls = torch.from_numpy(hull(random_boxes(300, extent=400)))
    index = BoxIndex(hulls)
    by_tree = {(i, j) for i, j in zip(*(x.tolist() for x in index.query(hulls[:77])), strict=True)}
    index.tree = None
    i, j = index.query(hulls[:77])
    assert by_tree == set(zip(i.tolist(), j.tolist(), strict=True)) and len(by_tree) == len(i)
    assert (i.diff() >= 0).all()
