"""Box transforms agree with pixel transforms."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from rasterio.features import rasterize

from geotune.boxes.oriented import as_oriented, hull
from geotune.boxes.polygons import to_polygons
from geotune.boxes.transforms import rotate90_flip, translate
from geotune.data.raster.orientation import NUM_ORIENTATIONS, orient

SHAPE = (60, 90)


@pytest.mark.parametrize("orientation", range(NUM_ORIENTATIONS))
@pytest.mark.parametrize("seed", range(3))
def test_rotated_and_flipped_box_covers_the_same_pixels(
    orientation: int, seed: int, random_boxes: Callable[..., np.ndarray]
) -> None:
    box = random_boxes(1, seed)
    pixels = rasterize(to_polygons(box), SHAPE)
    expected = orient(pixels, orientation)
    result = rotate90_flip(box, orientation, SHAPE)
    drawn = rasterize(to_polygons(result), expected.shape)
    assert pixels.any() and (drawn != expected).mean() < 0.002, "only pixels on the edge may differ"
    assert np.allclose(rotate90_flip(hull(box), orientation, SHAPE), hull(result))
    assert np.allclose(rotate90_flip(box[:, :2], orientation, SHAPE), result[:, :2])


@pytest.mark.parametrize("orientation", range(NUM_ORIENTATIONS))
def test_every_orientation_has_an_inverse(
    orientation: int, random_boxes: Callable[..., np.ndarray]
) -> None:
    boxes = random_boxes(50)
    back = orientation if orientation >= 4 else -orientation % 4
    shape = SHAPE if orientation % 2 == 0 else SHAPE[::-1]
    assert np.allclose(rotate90_flip(rotate90_flip(boxes, orientation, SHAPE), back, shape), boxes)


def test_translate_changes_coordinates_only(random_boxes: Callable[..., np.ndarray]) -> None:
    boxes = random_boxes(5)
    shifted = translate(boxes, -3, 7)
    assert np.allclose(shifted - boxes, [-3, 7, 0, 0, 0])
    assert np.allclose(hull(shifted), translate(hull(boxes), -3, 7))
    assert np.allclose(as_oriented(shifted)[:, :2], translate(boxes[:, :2], -3, 7))
