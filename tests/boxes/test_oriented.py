"""Canonical form, and conversion to and from corners."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchvision.ops import box_convert

from geotune.boxes.oriented import as_oriented, canonical, centres, corners, from_corners, hull

Boxes = NDArray[np.float64]

coordinates = st.floats(-1e6, 1e6)
sides = st.floats(1e-3, 1e3)
# Angles at the wraps, next to them, and arbitrary ones.
wraps = st.sampled_from(
    [k * math.pi / 4 + d for k in range(-8, 9) for d in (0, 1e-16, 1e-9, -1e-9)]
)
angles = st.one_of(wraps, st.floats(-10, 10))


@st.composite
def boxes(draw: st.DrawFn) -> Boxes:
    w = draw(sides)
    shape = draw(st.sampled_from(["any", "square", "thin", "none"]))
    h = {"any": draw(sides), "square": w, "thin": 1e-6 * w, "none": 0.0}[shape]
    return np.array([draw(coordinates), draw(coordinates), w, h, draw(angles)])


def same_outline(first: Boxes, second: Boxes, tolerance: float) -> bool:
    """Whether the corners are equal, in any cyclic order and direction."""
    a, b = corners(first), corners(second)
    return any(
        np.abs(a - np.roll(order, k, 0)).max() <= tolerance
        for order in (b, b[::-1])
        for k in range(4)
    )


def tolerance(box: Boxes) -> float:
    return 1e-9 * (1 + abs(box[:4]).max())


@settings(deadline=None)
@given(boxes())
def test_canonical_form_is_the_same_rectangle_with_the_angle_in_range(box: Boxes) -> None:
    form = canonical(box)
    assert form[2] >= form[3]
    end = math.pi / 4 if form[2] == form[3] else math.pi / 2
    assert -end <= form[4] < end
    assert same_outline(box, form, tolerance(box))
    assert np.array_equal(canonical(form), form)


@settings(deadline=None)
@given(boxes(), st.integers(-3, 3), st.booleans())
def test_canonical_form_is_unique(box: Boxes, half_turns: int, sides_swapped: bool) -> None:
    other = box + np.array([0, 0, 0, 0, half_turns * math.pi])
    if sides_swapped:
        other = other[[0, 1, 3, 2, 4]] + np.array([0, 0, 0, 0, math.pi / 2])
    form, other = canonical(box), canonical(other)
    assert np.array_equal(form[:4], other[:4])
    period = math.pi / 2 if form[2] == form[3] else math.pi
    difference = (form[4] - other[4] + period / 2) % period - period / 2
    assert abs(difference) < 1e-12  # rounding may choose either end of the range


@settings(deadline=None)
@given(boxes(), st.integers(0, 3), st.booleans())
def test_corner_round_trip_from_any_start_and_direction(
    box: Boxes, first: int, backwards: bool
) -> None:
    box = canonical(box)
    points = np.roll(corners(box), first, 0)
    back = from_corners(points[::-1] if backwards else points)
    assert same_outline(box, back, tolerance(box))
    assert back[:4] == pytest.approx(box[:4], abs=tolerance(box))


@settings(deadline=None)
@given(boxes())
def test_hull_equals_the_bounds_of_the_corners(box: Boxes) -> None:
    points = corners(box)
    expected = [*points.min(0), *points.max(0)]
    assert hull(box) == pytest.approx(expected, abs=tolerance(box))


def test_corner_order_of_the_documented_convention() -> None:
    # A positive angle: the long side points down in the image.
    box = np.array([10.0, 20.0, 8.0, 2.0, math.pi / 6])
    upper_left, upper_right, lower_right, _ = corners(box)
    assert upper_right - upper_left == pytest.approx([8 * math.cos(math.pi / 6), 4])
    assert lower_right - upper_right == pytest.approx([-1, 2 * math.cos(math.pi / 6)])
    flat = corners(np.array([10.0, 20.0, 8.0, 2.0, 0.0]))
    assert flat.tolist() == [[6, 19], [14, 19], [14, 21], [6, 21]]


def test_corners_equal_torchvisions_for_the_counterclockwise_angle_in_degrees(
    random_boxes: Callable[..., Boxes],
) -> None:
    ours = torch.from_numpy(random_boxes(100))
    theirs = ours.clone()
    theirs[:, 4] = -torch.rad2deg(theirs[:, 4])
    expected = box_convert(theirs, "cxcywhr", "xyxyxyxy").reshape(-1, 4, 2)
    assert torch.allclose(corners(ours), expected, atol=1e-9)


@pytest.mark.parametrize("function", [canonical, corners, hull, centres])
def test_tensors_and_arrays_give_equal_results(
    function: Callable[..., Boxes], random_boxes: Callable[..., Boxes]
) -> None:
    array = random_boxes(50).reshape(5, 10, 5)
    assert np.allclose(function(torch.from_numpy(array)), function(array), atol=1e-12)
    single = function(array.astype(np.float32))
    assert single.dtype == np.float32 and np.allclose(single, function(array), atol=1e-4)
    assert function(array[:0]).shape[0] == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_canonical_angles_stay_in_range_after_rounding(dtype: type) -> None:
    ends = (np.arange(-300, 300) * math.pi / 2).astype(dtype)
    angle = torch.from_numpy(
        np.concatenate([ends, np.nextafter(ends, 999), np.nextafter(ends, -999)])
    )
    form = canonical(torch.stack([angle, angle, angle * 0 + 2, angle * 0 + 1, angle], -1))
    assert (form[:, 4] >= -math.pi / 2).all() and (form[:, 4] < math.pi / 2).all()


def test_horizontal_boxes_convert_to_oriented_and_back() -> None:
    upright, wide = np.array([[1.0, 2, 3, 8], [1, 2, 8, 3]])
    assert as_oriented(upright) == pytest.approx([2, 5, 6, 2, -math.pi / 2])
    assert as_oriented(wide) == pytest.approx([4.5, 2.5, 7, 1, 0])
    assert hull(as_oriented(upright)) == pytest.approx(upright)
    assert centres(upright).tolist() == [2, 5] and hull(np.array([3.0, 4])).tolist() == [3, 4, 3, 4]
