"""Pixels without data, on the file's grid and resampled: nodata values, masks, alpha bands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT

from geotune.data.labels.open_labels import open_labels
from geotune.data.labels.regression_labels import open_regression_labels
from geotune.data.raster.nodata import is_nodata
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.windows import Window

LOWEST = float(np.finfo(np.float32).min)
COARSE = from_origin(500_000, 5_000_000, 20, 20)
Write = Callable[..., Path]


def read(source: Any) -> Any:
    return source.read(Window(0, 0, *source.shape))


def noise(bands: int, dtype: str = "float32") -> Any:
    return np.random.default_rng(bands).integers(1, 200, (bands, 24, 24)).astype(dtype)


def resampled(write_raster: Write, band: Any, nodata: float | None) -> Any:
    """A single band resampled to `COARSE` by rasterio."""
    path = write_raster("reference.tif", band, nodata=nodata)
    with (
        rasterio.open(path) as file,
        WarpedVRT(
            file,
            transform=COARSE,
            width=12,
            height=12,
            resampling=Resampling.bilinear,
            dtype="float32",
            nodata=np.nan,
        ) as vrt,
    ):
        return vrt.read(1)


def write_vrt(path: Path, nodata: list[float], source: Path) -> Path:
    """A VRT of a file, with a nodata value for each band."""
    with rasterio.open(source) as file:
        crs, t, (height, width) = file.crs, file.transform.to_gdal(), file.shape
    bands = "".join(
        f'<VRTRasterBand dataType="Float32" band="{i}"><NoDataValue>{value}</NoDataValue>'
        f"<SimpleSource><SourceFilename>{source}</SourceFilename><SourceBand>{i}</SourceBand>"
        "</SimpleSource></VRTRasterBand>"
        for i, value in enumerate(nodata, 1)
    )
    path.write_text(
        f'<VRTDataset rasterXSize="{width}" rasterYSize="{height}"><SRS>{crs.to_wkt()}</SRS>'
        f"<GeoTransform>{', '.join(map(str, t))}</GeoTransform>{bands}</VRTDataset>"
    )
    return path


@pytest.mark.parametrize("per_band", [False, True])
def test_nodata_of_one_band_has_no_weight(
    write_raster: Write, tmp_path: Path, per_band: bool
) -> None:
    values = noise(3)
    nodata = [-9999.0, -1.0, -9999.0] if per_band else [-9999.0] * 3
    values[0, 2:9, 3:7] = nodata[0]
    values[1, 8:20, 11:13] = nodata[1]
    values[2, 0, 0] = nodata[2]
    values[2, 5, 5] = -1 if per_band else -2  # the nodata value of another band is data
    path = write_raster("a.tif", values, nodata=None if per_band else -9999)
    if per_band:
        path = write_vrt(tmp_path / "a.vrt", nodata, path)
    image = read(open_raster(path, resolution=20))
    for i, value in enumerate(nodata):
        expected = resampled(write_raster, values[i], value)
        np.testing.assert_allclose(image[i], expected, rtol=1e-6)
    native = read(open_raster(path))
    expected = np.where(values == np.array(nodata)[:, None, None], np.nan, values)
    np.testing.assert_array_equal(native, expected)


def test_nodata_of_one_band_of_labels_has_no_weight(write_raster: Write) -> None:
    scene = open_raster(write_raster("s.tif", noise(1)), resolution=20)
    heights = noise(2)
    heights[1, 3:10, 3:10] = -9999
    path = write_raster("l.tif", heights, nodata=-9999)
    labels = open_regression_labels(path, scene, quantity="height", band=2)
    values = labels.read(Window(0, 0, 12, 12)).values
    expected = resampled(write_raster, heights[1], -9999)
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert np.nanmin(values) > 0


@pytest.mark.parametrize("resolution", [None, 20])
def test_mask_and_nodata_value_of_one_file(write_raster: Write, resolution: int | None) -> None:
    values = noise(2)
    values[0, 2:6, 2:6] = -9999
    values[:, 12:18, 12:18] = 1e6
    path = write_raster("a.tif", values, nodata=-9999)
    hidden = np.full((24, 24), 255, dtype="uint8")
    hidden[12:18, 12:18] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(hidden)
    image = read(open_raster(path, resolution=resolution))
    labels = open_regression_labels(path, open_raster(path, resolution=resolution), quantity="h")
    heights = labels.read(Window(0, 0, *image.shape[1:])).values
    for band in (image[0], heights):
        assert np.nanmin(band) >= 1 and np.nanmax(band) < 200
        step = 2 if resolution else 1
        assert np.isnan(band[12 // step : 18 // step, 12 // step : 18 // step]).all()
        # GDAL averages over the neighbours of a larger pixel
        assert np.isnan(band[2:6, 2:6]).all() if resolution is None else True
    assert not np.isnan(image[1, : 10 // step]).any()


@pytest.mark.parametrize("resolution", [None, 20])
def test_mask_of_class_labels_is_ignored(write_raster: Write, resolution: int | None) -> None:
    scene = open_raster(write_raster("s.tif", noise(1)), resolution=resolution)
    classes = np.ones((24, 24), dtype="uint8")
    classes[4:8, 4:8] = 77  # under the mask, so that no class is needed
    hidden = np.where(classes == 77, 0, 255).astype("uint8")
    path = write_raster("l.tif", classes)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(hidden)
    labels = open_labels(path, scene, classes=["water", "land"])
    step = 2 if resolution else 1
    expected = np.where(hidden[::step, ::step] == 0, 255, 1)
    assert (labels.read(Window(0, 0, *scene.shape)).mask == expected).all()


@pytest.mark.parametrize("nodata", [-3.40282e38, -3.402823e38, LOWEST, 1e20, -9999.9])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_match_nodata_as_gdal_does(write_raster: Write, nodata: float, dtype: str) -> None:
    exact = np.dtype(dtype).type(nodata)
    factors = np.array([1, 0.9999999, 0.9999997, 0.999999, 0.99999, 1e-30], dtype=dtype)
    near = np.append(exact * factors, [LOWEST, 0, 7]).astype(dtype)
    path = write_raster("a.tif", near[None], nodata=nodata)
    with rasterio.open(path) as file:
        expected = file.read_masks(1) == 0
        found = is_nodata(file.read(1), file.nodata, np.dtype(dtype))
    assert found is not None and found.tolist() == expected.tolist() and found[0, 0]
    assert np.isnan(read(open_raster(path))[0]).tolist() == expected.tolist()


@pytest.mark.parametrize("resolution", [None, 20])
def test_nodata_in_six_digits(write_raster: Write, resolution: int | None) -> None:
    """As files that were written as text state the smallest number of float32."""
    values = noise(1)
    values[0, :8] = LOWEST
    stated = write_raster("a.tif", values, nodata=-3.40282e38)
    unstated = write_raster("b.tif", values)
    scene = open_raster(stated, resolution=resolution)
    for source in (scene, open_raster(unstated, nodata=-3.40282e38, resolution=resolution)):
        image = read(source)[0]
        assert np.isnan(image[:3]).all() and np.nanmin(image) >= 1
    labels = open_regression_labels(stated, scene, quantity="height")
    heights = labels.read(Window(0, 0, *scene.shape)).values
    assert np.isnan(heights[:3]).all() and np.nanmin(heights) >= 1
    classes = write_raster("c.tif", np.where(values > 0, 1, values), nodata=-3.40282e38)
    mask = open_labels(classes, scene, classes=["water", "land"]).read(Window(0, 0, *scene.shape))
    assert set(np.unique(mask.mask)) == {1, 255} and (mask.mask[:3] == 255).all()


def test_near_infrared_is_not_transparency_when_resampled(write_raster: Write) -> None:
    """GDAL takes the fourth of four byte bands for transparency, and weighs pixels by it."""
    values = noise(4, "uint8")
    values[3] //= 20  # dark, so almost transparent
    path = write_raster("a.tif", values)
    with rasterio.open(path) as file:
        assert file.colorinterp[3].name == "alpha"
    image = read(open_raster(path, resolution=20))
    for i in range(4):
        expected = resampled(write_raster, values[i], None)
        np.testing.assert_allclose(image[i], expected, rtol=1e-6)


def test_nodata_values_of_several_bands_count_only_together(write_raster: Write) -> None:
    """GDAL's NODATA_VALUES."""
    values = noise(3, "uint8") + 10
    values[:, 2:6, 2:6] = np.array([1, 2, 3])[:, None, None]
    values[0, 10, 10] = 1  # of this colour in one band only
    path = write_raster("a.tif", values)
    with rasterio.open(path, "r+") as file:
        file.update_tags(NODATA_VALUES="1 2 3")
    expected = values.astype("float32")
    expected[:, 2:6, 2:6] = np.nan
    np.testing.assert_array_equal(read(open_raster(path)), expected)
    coarse = read(open_raster(path, resolution=20))
    assert np.isnan(coarse[:, 1:3, 1:3]).all() and np.isnan(coarse).sum() == 3 * 4
    assert np.nanmin(coarse) > 5
    labels = open_regression_labels(path, open_raster(path), quantity="q", band=1)
    found = labels.read(Window(0, 0, 24, 24)).values
    np.testing.assert_array_equal(found, expected[0])
