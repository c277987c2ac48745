"""Regression labels on the scene's grid or another one, and pixels without a label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geotune.data.labels.regression_labels import open_regression_labels
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from helpers.errors import raises

WHOLE = Window(0, 0, 12, 16)


@pytest.fixture
def scene(write_raster: Callable[..., Path]) -> RasterSource:
    return open_raster(write_raster("s.tif", np.ones((1, 12, 16), dtype="uint8")))


def plane(height: int, width: int, step: float = 1.0) -> np.ndarray:  # type: ignore[type-arg]
    """A plane whose value is 3 column + row of the scene's pixel under a centre."""
    rows, cols = np.mgrid[:height, :width]
    return (3 * ((cols + 0.5) * step - 0.5) + (rows + 0.5) * step - 0.5).astype(np.float32)


def test_values_on_the_scenes_grid_are_unchanged(
    scene: RasterSource, write_raster: Callable[..., Path]
) -> None:
    values = plane(12, 16)
    values[0, 0], values[1, 1] = np.nan, -9999
    path = write_raster("l.tif", np.stack([values * 0, values]), nodata=-9999)
    labels = open_regression_labels(path, scene, quantity="height", band=2)
    target = labels.read(WHOLE)
    assert labels.classes == ("height",) and target.values.dtype == np.float32
    unknown = np.isnan(target.values)
    assert np.argwhere(unknown).tolist() == [[0, 0], [1, 1]]
    np.testing.assert_array_equal(target.values[~unknown], values[~unknown])
    assert len(target.regression_values()) == 190
    shifted = labels.read(Window(2, -3, 4, 8)).values
    assert np.isnan(shifted[:, :3]).all()
    np.testing.assert_array_equal(shifted[:, 3:], values[2:6, :5])


@pytest.mark.parametrize("step", [0.5, 2.0])
def test_resampling_keeps_a_plane(
    scene: RasterSource, write_raster: Callable[..., Path], step: float
) -> None:
    values = plane(int(12 / step) + 4, int(16 / step) + 4, step)
    transform = from_origin(500_000, 5_000_000, 10 * step, 10 * step)
    labels = open_regression_labels(
        write_raster("l.tif", values, transform=transform), scene, quantity="height"
    )
    assert "another grid" in labels.notes[0]
    result = labels.read(WHOLE).values
    np.testing.assert_allclose(result[2:-2, 2:-2], plane(12, 16)[2:-2, 2:-2], atol=0.01)


def test_nodata_has_no_weight_in_interpolation(
    scene: RasterSource, write_raster: Callable[..., Path]
) -> None:
    values = np.full((12, 16), 7, dtype="int16")
    values[:, 8:] = -999
    transform = from_origin(500_003, 5_000_004, 10, 10)
    labels = open_regression_labels(
        write_raster("l.tif", values, transform=transform, nodata=-999), scene, quantity="height"
    )
    result = labels.read(WHOLE).values
    known = result[~np.isnan(result)]
    assert known.size > 60 and (known == 7).all() and np.isnan(result[:, 10:]).all()


def test_unusable_labels_raise(
    scene: RasterSource, write_raster: Callable[..., Path], tmp_path: Path
) -> None:
    values = plane(12, 16)
    values[3, 5] = np.inf
    labels = open_regression_labels(write_raster("l.tif", values), scene, quantity="height")
    with raises("label-value", file=labels.path, mentions=["row 3, column 5"]):
        labels.check([WHOLE])
    with raises("band-missing", key="data.label_band", mentions=["1 bands", "is 2"]):
        open_regression_labels(tmp_path / "l.tif", scene, quantity="height", band=2)
    with raises("file-unreadable", file=tmp_path / "l.gpkg"):
        open_regression_labels(tmp_path / "l.gpkg", scene, quantity="height")
    small = write_raster("m.tif", plane(6, 6), crs=None)
    with raises("grid-mismatch", file=small, mentions=["6x6", "12x16"]):
        open_regression_labels(small, scene, quantity="height")


def test_scale_and_offset_of_labels_are_noted(
    scene: RasterSource, write_raster: Callable[..., Path]
) -> None:
    path = write_raster("l.tif", plane(12, 16))
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = [0.01], [5]
    labels = open_regression_labels(path, scene, quantity="height")
    assert labels.notes == (f"{path}: states scale 0.01 and offset 5, which are not applied",)
    np.testing.assert_array_equal(labels.read(WHOLE).values, plane(12, 16))
