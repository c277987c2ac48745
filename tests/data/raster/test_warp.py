"""Affine crops move pixels, classes, boxes and points of a scene consistently."""

from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from geotune.boxes.oriented import canonical, centres, corners
from geotune.boxes.polygons import to_polygons
from geotune.data.annotations.object_labels import ObjectLabels
from geotune.data.labels.targets import ObjectDensity, PixelClasses, PixelValues
from geotune.data.raster.warp import AffineCrop, rotated_crop, warp_bilinear, warp_nearest
from geotune.types import IGNORE

SCENE = 120
SIZE = 48

angles = st.floats(-180, 180)
scales = st.floats(0.5, 2.0)
positions = st.floats(45, 75)


def cut(pixels: Any, crop: AffineCrop, empty: Any) -> Any:
    """The crop's window of a whole scene, `empty` outside it."""
    there = np.pad(pixels, SCENE, constant_values=empty)
    top, left = crop.window.row + SCENE, crop.window.col + SCENE
    return there[top : top + crop.window.height, left : left + crop.window.width]


def disc(x: float, y: float, radius: float) -> Any:
    """Fractions `(SCENE, SCENE)` of pixels that a disc covers."""
    fine = 4
    rows, cols = (np.mgrid[: SCENE * fine, : SCENE * fine] + 0.5) / fine
    inside = (cols - x) ** 2 + (rows - y) ** 2 < radius**2
    return inside.reshape(SCENE, fine, SCENE, fine).mean(axis=(1, 3)).astype(np.float32)


def middle(shares: Any) -> Any:
    """Centre of mass (x, y)."""
    rows, cols = np.mgrid[: shares.shape[0], : shares.shape[1]] + 0.5
    return np.array([(cols * shares).sum(), (rows * shares).sum()]) / shares.sum()


@given(
    angle=angles,
    scale=scales,
    x=positions,
    y=positions,
    east=st.floats(-6, 6),
    south=st.floats(-6, 6),
)
@settings(max_examples=25, deadline=None)
def test_image_mask_and_boxes_stay_aligned(
    angle: float, scale: float, x: float, y: float, east: float, south: float
) -> None:
    """A disc in image and mask coincides with its box and its point to half a pixel."""
    crop = rotated_crop(x, y, SIZE, angle=angle, scale=scale)
    at = np.array([x + east, y + south])
    painted = disc(*at, 5)
    image = np.nan_to_num(
        warp_bilinear(cut(painted, crop, np.nan)[None], crop.transform, crop.shape)[0]
    )
    drawn = cut((painted > 0.5).astype(np.int64), crop, IGNORE)
    mask = PixelClasses(drawn).warp(crop.transform, crop.shape)
    boxes = np.array([[*at, 10.0, 10.0, 0.3]])
    boxes[:, :2] -= [crop.window.col, crop.window.row]
    target = objects(canonical(boxes), crop).warp(crop.transform, crop.shape)
    result = target.boxes[0]
    assert np.abs(middle(image) - centres(result)).max() < 0.5
    expected = crop.transform @ tuple(middle(drawn == 1))
    assert np.abs(middle(mask.mask == 1) - expected).max() <= 0.5 + 1e-6  # nearest neighbour
    assert np.abs(result[2:4] - 10 * scale).max() < 1e-6
    assert image.sum() == pytest.approx(painted.sum() * scale**2, rel=0.02)


def objects(boxes: Any, crop: AffineCrop) -> Any:
    count = len(boxes)
    labels = ObjectLabels(
        path="objects",  # type: ignore[arg-type]  # no file is read
        classes=("ship",),
        shape=(crop.window.height, crop.window.width),
        boxes=boxes,
        indices=np.zeros(count, dtype=np.int64),
        difficult=np.zeros(count, dtype=bool),
        min_visibility=0.5,
        overlaps=True,
    )
    return labels.read(crop.window._replace(row=0, col=0))


@given(angle=angles, scale=scales)
@settings(max_examples=25, deadline=None)
def test_boxes_are_transformed_by_their_corners(angle: float, scale: float) -> None:
    """Oriented boxes exactly; a horizontal box is the smallest around the corners."""
    crop = rotated_crop(60, 60, SIZE, angle=angle, scale=scale)
    box = np.array([[crop.window.width / 2, crop.window.height / 2, 9.0, 4.0, 0.4]])
    points = np.array([crop.transform @ tuple(p) for p in corners(box)[0]])
    target = objects(box, crop).warp(crop.transform, crop.shape)
    [shape] = to_polygons(target.boxes)
    assert shapely.hausdorff_distance(shape, shapely.Polygon(points)) < 1e-6
    flat = objects(np.array([[20.0, 25.0, 30.0, 28.0]]), crop).warp(crop.transform, crop.shape)
    ends = np.array([crop.transform @ p for p in ((20, 25), (30, 25), (30, 28), (20, 28))])
    expected = [*ends.min(axis=0), *ends.max(axis=0)]
    if len(flat.boxes):
        np.testing.assert_allclose(flat.boxes[0], expected, atol=1e-6)


def test_objects_count_by_their_visible_fraction() -> None:
    crop = rotated_crop(60, 60, 20, angle=0, scale=1)
    there = np.array([[10.0, 5, 4, 4, 0], [0, 10, 8, 4, 0], [-1, 15, 8, 4, 0], [-9, 9, 8, 4, 0]])
    inside = there + np.array([50 - crop.window.col, 50 - crop.window.row, 0, 0, 0])
    target = objects(inside, crop).warp(crop.transform, crop.shape)
    np.testing.assert_allclose(target.boxes[:, :2], there[:3, :2], atol=1e-9)
    assert target.counted.tolist() == [True, True, False]
    assert target.visible_fraction[:2] == pytest.approx([1, 0.5])


@pytest.mark.parametrize("quarters", range(4))
def test_quarter_turns_without_scale_equal_rot90(quarters: int) -> None:
    rng = np.random.default_rng(0)
    scene = rng.random((2, SCENE, SCENE), dtype=np.float32)
    classes = rng.integers(0, 4, (SCENE, SCENE))
    crop = rotated_crop(60, 50, 32, angle=90 * quarters, scale=1)
    pixels = np.stack([cut(band, crop, np.nan) for band in scene])
    expected = np.rot90(scene[:, 34:66, 44:76], quarters, (1, 2))
    np.testing.assert_allclose(
        warp_bilinear(pixels, crop.transform, crop.shape), expected, atol=1e-4
    )
    mask = warp_nearest(cut(classes, crop, IGNORE), crop.transform, crop.shape, fill=IGNORE)
    assert (mask == np.rot90(classes[34:66, 44:76], quarters)).all()


@given(angle=angles, scale=scales, seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_object_counts_are_preserved(angle: float, scale: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    crop = rotated_crop(60, 60, SIZE, angle=angle, scale=scale)
    reach = SIZE / scale / 2 - 9
    distance, way = rng.uniform(0, reach, 12), rng.uniform(0, 2 * np.pi, 12)
    xs, ys = 60 + distance * np.cos(way), 60 + distance * np.sin(way)
    rows, cols = np.mgrid[:SCENE, :SCENE] + 0.5
    spread = np.exp(-((cols - xs[:, None, None]) ** 2 + (rows - ys[:, None, None]) ** 2) / 8)
    density = (spread / (8 * np.pi)).sum(axis=0).astype(np.float32)
    counts = np.zeros((SCENE, SCENE), dtype=np.int64)
    np.add.at(counts, (ys.astype(int), xs.astype(int)), 1)
    target = ObjectDensity(cut(density, crop, np.nan), cut(counts, crop, 0))
    result = target.warp(crop.transform, crop.shape)
    assert np.nansum(result.values) == pytest.approx(12, rel=0.02)
    assert result.counts.sum() == 12


@given(angle=angles, scale=scales)
@settings(max_examples=20, deadline=None)
def test_nodata_does_not_bleed_into_neighbours(angle: float, scale: float) -> None:
    scene = np.full((SCENE, SCENE), 7.0, dtype=np.float32)
    scene[60:70, 55:75] = np.nan
    crop = rotated_crop(60, 60, SIZE, angle=angle, scale=scale)
    values = PixelValues(cut(scene, crop, np.nan)).warp(crop.transform, crop.shape).values
    np.testing.assert_allclose(values[~np.isnan(values)], 7, rtol=1e-5)
    hidden = np.isnan(values).sum()
    shown = warp_nearest(
        cut(np.isnan(scene).astype(np.int64), crop, 1), crop.transform, crop.shape, fill=1
    )
    assert abs(hidden - shown.sum()) < 0.1 * SIZE**2


def test_pixels_outside_the_scene_are_empty() -> None:
    crop = rotated_crop(5, 5, SIZE, angle=30, scale=1)
    mask = warp_nearest(
        cut(np.ones((SCENE, SCENE), dtype=np.int64), crop, IGNORE),
        crop.transform,
        crop.shape,
        fill=IGNORE,
    )
    image = warp_bilinear(
        cut(np.ones((SCENE, SCENE), np.float32), crop, np.nan)[None], crop.transform, crop.shape
    )
    assert (mask == IGNORE).any() and ((mask == IGNORE) | (mask == 1)).all()
    assert np.isnan(image).any() and ((mask == IGNORE) != np.isnan(image[0])).mean() < 0.05
