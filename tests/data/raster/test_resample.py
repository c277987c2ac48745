"""Images resampled to a resolution, and their labels."""

from typing import Any

import numpy as np
import pytest
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform as to_crs
from rasterio.windows import Window as RasterioWindow
from shapely.geometry import box

from geotune.data.labels.open_labels import open_labels
from geotune.data.raster.io import open_warped
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.windows import Window
from helpers.errors import raises

FINE = from_origin(500_000, 5_000_000, 10, 10)
COARSE = from_origin(500_000, 5_000_000, 20, 20)


def full_window(source: Any) -> Window:
    return Window(0, 0, *source.shape)


def test_coarser_pixels_are_means(write_raster: Any) -> None:
    """GDAL's bilinear kernel includes neighbours, which cancel out on a slope."""
    rows, cols = np.mgrid[:40, :60]
    path = write_raster("a.tif", (3.0 * rows + cols).astype("float32"), transform=FINE)
    source = open_raster(path, resolution=20)
    assert source.shape == (20, 30) and source.gsd_m == pytest.approx(20)
    result = source.read(full_window(source))[0]
    expected = (3.0 * rows + cols).reshape(20, 2, 30, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(result[1:-1, 1:-1], expected[1:-1, 1:-1], atol=1e-3)
    assert np.isnan(source.read(Window(19, 29, 2, 2))[0]).tolist() == [[False, True], [True, True]]


@pytest.mark.parametrize("metres", [10, 10.004])
def test_image_at_the_resolution_is_unchanged(write_raster: Any, metres: float) -> None:
    values = np.random.default_rng(0).random((1, 30, 40), dtype=np.float32)
    path = write_raster("a.tif", values, transform=FINE)
    source = open_raster(path, resolution=metres)
    assert (source.read(full_window(source)) == values).all()


def test_resolution_brings_files_of_a_scene_to_one_grid(write_raster: Any) -> None:
    """B11 is coarser and has another origin; both show one slope from west to east."""
    eastings = 500_000 + 10 * (np.arange(60) + 0.5)
    fine = np.repeat(eastings[None], 40, axis=0).astype("float64")
    first = write_raster("a/B02.tif", fine, transform=FINE)
    other_origin = from_origin(499_900, 5_000_100, 20, 20)
    second = write_raster(
        "a/B11.tif",
        np.repeat((499_900 + 20 * (np.arange(60) + 0.5))[None], 60, axis=0),
        transform=other_origin,
    )
    files = {"B02": first, "B11": second}
    with raises("grid-mismatch", key="data.resolution", file=first, mentions=[second]):
        open_raster(files)
    source = open_raster(files, resolution=10)
    image = source.read(full_window(source))
    assert image.shape == (2, 40, 60)
    np.testing.assert_allclose(image[1], image[0], atol=0.1)


def test_degrees_are_reprojected_to_the_utm_zone(write_raster: Any) -> None:
    transform = from_origin(15.0, 45.0, 1e-4, 1e-4)
    values = np.full((1, 50, 60), 7, dtype="uint8")
    path = write_raster("a.tif", values, crs="EPSG:4326", transform=transform)
    source = open_raster(path, resolution=10)
    assert source.crs.to_epsg() == 32633 and source.gsd_m == pytest.approx(10)
    image = source.read(full_window(source))
    assert (image[~np.isnan(image)] == 7).all() and np.isnan(image).mean() < 0.1
    x, y = source.transform @ (source.shape[1] / 2, source.shape[0] / 2)
    [east], [north] = to_crs(source.crs, "EPSG:4326", [x], [y])
    assert (east, north) == pytest.approx((15.003, 44.9975), abs=1e-4)


def test_nodata_has_no_weight(write_raster: Any) -> None:
    values = np.full((1, 40, 40), 9, dtype="uint16")
    values[0, :, :11] = 0
    path = write_raster("a.tif", values, nodata=0, transform=FINE)
    source = open_raster(path, resolution=20)
    image = source.read(full_window(source))
    assert set(np.unique(image[~np.isnan(image)])) == {9.0} and np.isnan(image[0, :, :5]).all()


def test_internal_mask_applies_at_another_resolution(write_raster: Any) -> None:
    import rasterio

    path = write_raster("a.tif", np.full((1, 40, 40), 9, dtype="uint8"), transform=FINE)
    hidden = np.full((40, 40), 255, dtype="uint8")
    hidden[:20] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(hidden)
    source = open_raster(path, resolution=20)
    image = source.read(full_window(source))
    assert np.isnan(image[0, :9]).all() and (image[0, 11:] == 9).all()


def test_labels_are_resampled_to_the_image(write_raster: Any, write_polygons: Any) -> None:
    """Rasters by nearest neighbour, polygons by their geometry."""
    mask = np.zeros((40, 60), dtype="uint8")
    mask[10:20, 30:50] = 1
    raster = open_raster(write_raster("a.tif", mask, transform=FINE), resolution=20)
    expected = mask[::2, ::2]
    for path in (
        write_raster("l.tif", mask, transform=FINE),
        write_polygons("l.gpkg", [box(30, 10, 50, 20)]),
    ):
        labels = open_labels(path, raster, classes=["background", "ship"])
        assert (labels.read(full_window(raster)).mask == expected).all()


def test_resampling_without_georeference_raises(write_raster: Any) -> None:
    path = write_raster("a.tif", np.ones((1, 8, 8), dtype="uint8"), crs=None)
    with raises("crs-missing", key="data.resolution", file=path, mentions=["10 m"]):
        open_raster(path, resolution=10)


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:32632"])
@pytest.mark.parametrize("pixel", [4.0, 20.0, 33.3])
def test_resampled_pixels_do_not_depend_on_the_window(
    write_raster: Any, crs: str, pixel: float
) -> None:
    values = np.random.default_rng(0).normal(0, 1, (1, 200, 200)).astype("float32")
    path = write_raster("a.tif", values, crs="EPSG:32633", transform=from_origin(5e5, 5e6, 10, 10))
    [left], [top] = to_crs("EPSG:32633", crs, [500_200.0], [4_999_800.0])
    grid = (CRS.from_string(crs), from_origin(left, top, pixel, pixel), (40, 40))
    handle = open_warped(path, grid, None)
    whole = handle.read(1)
    assert not np.isnan(whole).all()
    rng = np.random.default_rng(1)
    for _ in range(30):
        height, width = (int(side) for side in rng.integers(1, 8, 2))
        row, col = (int(start) for start in rng.integers(0, 33, 2))
        part = handle.read(1, window=RasterioWindow(col, row, width, height))
        np.testing.assert_array_equal(part, whole[row : row + height, col : col + width])
