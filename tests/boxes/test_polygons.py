"""Minimum rectangles of geometries, visible fractions and clipping."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import shapely
import torch

from geotune.boxes.oriented import as_oriented, hull
from geotune.boxes.polygons import minimum_rectangles, to_polygons
from geotune.boxes.transforms import translate
from geotune.boxes.visibility import clip, visible_fraction

Make = Callable[..., np.ndarray]
SHAPE = (40, 70)


@pytest.mark.parametrize("shift", [0, 5e6])
def test_minimum_rectangle_of_a_rectangle_is_itself(random_boxes: Make, shift: float) -> None:
    boxes = random_boxes(200)
    back = minimum_rectangles(to_polygons(translate(boxes, shift, shift)))
    overlap = shapely.intersection(to_polygons(translate(back, -shift, -shift)), to_polygons(boxes))
    assert np.allclose(shapely.area(overlap) / (boxes[:, 2] * boxes[:, 3]), 1, atol=1e-6)
    assert np.allclose(back[:, :4], translate(boxes, shift, shift)[:, :4], atol=1e-6, rtol=0)


def test_minimum_rectangle_covers_the_shape_and_is_not_larger_than_its_envelope() -> None:
    points = np.random.default_rng(0).normal(size=(50, 9, 2))
    shapes = shapely.multipoints(points)
    boxes = minimum_rectangles(shapes)
    assert shapely.covers(shapely.buffer(to_polygons(boxes), 1e-9), shapes).all()
    hulls = shapely.convex_hull(shapes)
    assert np.all(boxes[:, 2] * boxes[:, 3] <= shapely.area(shapely.envelope(hulls)) + 1e-9)
    assert np.all(boxes[:, 2] * boxes[:, 3] >= shapely.area(hulls))


def test_lines_points_and_empty_geometries_have_boxes_without_area() -> None:
    shapes = shapely.from_wkt(
        ["LINESTRING (0 0, 3 4)", "POINT (7 8)", "POLYGON EMPTY", "POLYGON ((0 0, 2 2, 4 4, 0 0))"]
    )
    line, point, empty, flat = minimum_rectangles(shapes)
    assert line == pytest.approx([1.5, 2, 5, 0, np.arctan2(4, 3)])
    assert point.tolist()[:4] == [7, 8, 0, 0]
    assert np.isnan(empty).all()
    assert flat[2:4] == pytest.approx([np.sqrt(32), 0])
    assert minimum_rectangles(shapes[:0]).shape == (0, 5)


def test_visible_fraction_equals_shapelys(random_boxes: Make) -> None:
    boxes = random_boxes(500)
    window = shapely.box(0, 0, SHAPE[1], SHAPE[0])
    fractions = shapely.area(shapely.intersection(to_polygons(boxes), window)) / (
        boxes[:, 2] * boxes[:, 3]
    )
    assert 0 < (fractions == 0).sum() + (fractions < 0.7).sum() < 500
    assert np.allclose(visible_fraction(boxes, SHAPE), fractions)
    assert np.allclose(visible_fraction(torch.from_numpy(boxes), SHAPE), fractions)
    flat = hull(boxes)
    assert np.allclose(visible_fraction(flat, SHAPE), visible_fraction(as_oriented(flat), SHAPE))


def test_visible_fraction_of_points_and_boxes_without_area() -> None:
    points = np.array([[0.0, 0], [69.9, 39.9], [70, 10], [10, 40], [-0.1, 5]])
    assert visible_fraction(points, SHAPE).tolist() == [1, 1, 0, 0, 0]
    assert visible_fraction(np.hstack([points, points]), SHAPE).tolist() == [1, 1, 0, 0, 0]
    flat = np.hstack([points, np.zeros((5, 3))])
    assert visible_fraction(flat, SHAPE).tolist() == [1, 1, 0, 0, 0]
    assert visible_fraction(points[:0], SHAPE).shape == (0,)


def test_every_point_is_in_exactly_one_window_of_a_grid() -> None:
    points = np.random.default_rng(0).integers(0, 80, (200, 2)).astype(float)
    seen = [visible_fraction(translate(points, -x, -y), (40, 40)) for x in (0, 40) for y in (0, 40)]
    assert np.all(sum(seen) == 1)


def test_clipped_boxes_cover_the_part_inside(random_boxes: Make) -> None:
    boxes = translate(random_boxes(300), -10, -10)
    window = shapely.box(0, 0, SHAPE[1], SHAPE[0])
    cut, parts = clip(boxes, SHAPE), shapely.intersection(to_polygons(boxes), window)
    outside = shapely.is_empty(parts)
    assert outside.any() and np.isnan(cut[outside]).all() and not np.isnan(cut[~outside]).any()
    assert shapely.covers(shapely.buffer(to_polygons(cut[~outside]), 1e-6), parts[~outside]).all()
    whole = shapely.contains_properly(window, to_polygons(boxes))
    assert whole.any() and np.array_equal(cut[whole], boxes[whole])
    flat = clip(hull(boxes), SHAPE)
    inside = ~np.isnan(flat[:, 0])
    bounds = shapely.bounds(shapely.intersection(shapely.envelope(to_polygons(boxes)), window))
    assert np.allclose(flat[inside & ~outside], bounds[inside & ~outside])
