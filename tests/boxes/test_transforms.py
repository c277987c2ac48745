"""Boxes go with the pixels that they are around."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from rasterio.features import rasterize

from geotune.boxes.oriented import as_oriented, hull
from geotune.boxes.polygons import to_polygons
from geotune.boxes.transforms import rotate90_flip, translate
from geotune.data.augment import NUM_ORIENTATIONS, turn

SHAPE = (60, 90)


@pytest.mark.parametrize("which", range(NUM_ORIENTATIONS))
@pytest.mark.parametrize("seed", range(3))
def test_a_turned_box_covers_the_turned_pixels(
    which: int, seed: int, random_boxes: Callable[..., np.ndarray]
) -> None:
    box = random_boxes(1, seed)
    pixels = rasterize(to_polygons(box), SHAPE)
    expected = turn(pixels, which)
    found = rotate90_flip(box, which, SHAPE)
    drawn = rasterize(to_polygons(found), expected.shape)
    assert pixels.any() and (drawn != expected).mean() < 0.002, "pixel centres on the edge"
    assert np.allclose(rotate90_flip(hull(box), which, SHAPE), hull(found))
    assert np.allclose(rotate90_flip(box[:, :2], which, SHAPE), found[:, :2])


@pytest.mark.parametrize("which", range(NUM_ORIENTATIONS))
def test_every_turn_has_one_that_undoes_it(
    which: int, random_boxes: Callable[..., np.ndarray]
) -> None:
    boxes = random_boxes(50)
    back = which if which >= 4 else -which % 4
    shape = SHAPE if which % 2 == 0 else SHAPE[::-1]
    assert np.allclose(rotate90_flip(rotate90_flip(boxes, which, SHAPE), back, shape), boxes)


def test_moving_changes_places_only(random_boxes: Callable[..., np.ndarray]) -> None:
    boxes = random_boxes(5)
    there = translate(boxes, -3, 7)
    assert np.allclose(there - boxes, [-3, 7, 0, 0, 0])
    assert np.allclose(hull(there), translate(hull(boxes), -3, 7))
    assert np.allclose(as_oriented(there)[:, :2], translate(boxes[:, :2], -3, 7))
