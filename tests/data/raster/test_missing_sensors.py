"""Pixels without data in one of several files of a scene, on the files' grid and resampled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geotune.data.raster.windows import Window
from geotune.data.scenes.open_scenes import open_rasters

Write = Callable[..., Path]
SHAPE = (24, 24)
NAN = float("nan")


def gap(row: int) -> Any:
    hidden = np.zeros(SHAPE, dtype=np.bool_)
    hidden[row : row + 6, 6:18] = True
    return hidden


def write_with_gap(write: Write, name: str, kind: str, bands: list[str], hidden: Any) -> None:
    """A file in whose first band, or all bands, there is no data in `hidden`."""
    values = np.random.default_rng(0).integers(1, 200, (len(bands), *SHAPE)).astype("float32")
    if kind == "alpha":
        alpha = np.where(hidden, 0, 255).astype("uint8")
        image = np.concatenate([values.astype("uint8"), alpha[None]])
        write(name, image, bands=[*bands, "alpha"])
        return
    nodata = {"nodata": -9999.0, "nan": NAN}.get(kind)
    if nodata is not None:
        values[0, hidden] = nodata
    path = write(name, values, bands=bands, nodata=nodata)
    if kind == "mask":
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
            file.write_mask(~hidden)


@pytest.mark.parametrize("resolution", [None, 10, 20])
@pytest.mark.parametrize("optical", ["alpha", "mask", "nan", "nodata"])
@pytest.mark.parametrize("radar", ["alpha", "mask", "nan", "nodata"])
def test_a_gap_of_one_sensor_leaves_the_others(
    write_raster: Write, tmp_path: Path, optical: str, radar: str, resolution: float | None
) -> None:
    write_with_gap(write_raster, "s2/a.tif", optical, ["red", "nir"], gap(2))
    write_with_gap(write_raster, "s1/a.tif", radar, ["VV", "VH"], gap(6))
    patterns = {"S2L2A": f"{tmp_path}/s2/*.tif", "S1GRD": f"{tmp_path}/s1/*.tif"}
    source = open_rasters(patterns, resolution=resolution)["a"]
    block = source.read_block(Window(0, 0, *source.shape))
    step = 2 if resolution == 20 else 1
    second = (gap(2) & (optical != "nodata"), gap(6) & (radar != "nodata"))
    expected = np.stack([gap(2), second[0], gap(6), second[1]])[:, ::step, ::step]
    assert (np.isnan(block.image) == expected).all()
    assert (block.valid == ~expected.all(axis=0)).all() and not block.invalid.any()


@pytest.mark.parametrize("resolution", [None, 20])
@pytest.mark.parametrize("kind", ["mask", "nan", "nodata"])
def test_a_gap_of_one_file_leaves_the_other_bands_and_dates(
    write_raster: Write, tmp_path: Path, kind: str, resolution: float | None
) -> None:
    rows = {("20200101", "red"): 2, ("20200101", "nir"): 6}
    rows |= {("20200601", "red"): 10, ("20200601", "nir"): 14}
    for (day, band), row in rows.items():
        write_with_gap(write_raster, f"a_{day}_{band}.tif", kind, [band], gap(row))
    pattern = f"{tmp_path}/{{scene}}_{{date}}_{{band}}.tif"
    source = open_rasters(pattern, wanted_bands=["red", "nir"], resolution=resolution)["a"]
    image = source.read(Window(0, 0, *source.shape))
    step = 2 if resolution else 1
    expected = np.stack([gap(2), gap(10), gap(6), gap(14)])[:, ::step, ::step]
    assert (np.isnan(image) == expected.reshape(image.shape)).all()


@pytest.mark.parametrize("nodata", [NAN, -9999.0, None])
def test_a_smaller_sensor_leaves_the_rest_of_the_other(
    write_raster: Write, tmp_path: Path, nodata: float | None
) -> None:
    write_raster("s2/a.tif", np.ones((1, *SHAPE), dtype="float32"), bands=["red"], nodata=NAN)
    west = from_origin(500_000, 5_000_000, 20, 20)
    radar = np.ones((1, 12, 6), dtype="float32")
    write_raster("s1/a.tif", radar, bands=["VV"], transform=west, nodata=nodata)
    patterns = {"S2L2A": f"{tmp_path}/s2/*.tif", "S1GRD": f"{tmp_path}/s1/*.tif"}
    image = open_rasters(patterns, resolution=10)["a"].read(Window(0, 0, *SHAPE))
    assert not np.isnan(image[0]).any()
    assert np.isnan(image[1, :, 12:]).all() and not np.isnan(image[1, :, :12]).any()
