"""Bands of transparency: pixels without data, on the file's grid and resampled."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.windows import Window
from helpers.errors import raises

RGB = ["red", "green", "blue"]
Write = Callable[..., Path]


def rgba(height: int = 24, width: int = 24) -> Any:
    """An orthomosaic that is transparent, and white, outside its middle."""
    image = np.random.default_rng(0).integers(1, 200, (4, height, width)).astype("uint8")
    image[:3, :6] = 255
    image[3, 6:] = 255
    image[3, 10:14, 10:14] = 128  # half transparent pixels are data
    image[3, :6] = 0
    return image


def read(source: Any) -> Any:
    return source.read(Window(0, 0, *source.shape))


@pytest.mark.parametrize("bands", [RGB, [*RGB, "alpha"], None])
def test_transparent_pixels_have_no_data(write_raster: Write, bands: list[str] | None) -> None:
    """Whether the last band is named, omitted from the names, or described in the file."""
    image = rgba()
    path = write_raster(
        "a.tif", image, bands=() if bands else [*RGB, "Alpha"], photometric="RGB", alpha="YES"
    )
    source = open_raster(path, bands=bands, wanted_bands=["blue", "red"])
    expected = np.where(image[3] == 0, np.nan, image[[2, 0]].astype("float32"))
    np.testing.assert_array_equal(read(source), expected)
    assert open_raster(path, bands=bands).bands == tuple(RGB)
    coarse = read(open_raster(path, bands=bands, resolution=20))
    assert coarse.shape == (3, 12, 12) and np.isnan(coarse[:, :3]).all()
    assert not np.isnan(coarse[:, 3:]).any() and coarse[:, 3:].max() < 200


@pytest.mark.parametrize("driver", ["PNG", "GTiff"])
def test_pictures_with_and_without_transparency(tmp_path: Path, driver: str) -> None:
    """Grey and coloured."""
    image = rgba()
    for count, names in ((4, RGB), (3, RGB), (2, ["grey"]), (1, ["grey"])):
        path = tmp_path / f"{count}.img"
        bands = image[:count] if count != 2 else image[[0, 3]]
        options: dict[str, Any] = {
            "driver": driver,
            "count": count,
            "height": 24,
            "width": 24,
            "dtype": "uint8",
        }
        if driver == "GTiff" and count % 2 == 0:
            options["alpha"] = "YES"
        with rasterio.open(path, "w", **options) as file:
            file.write(bands)
        source = open_raster(path, bands=names)
        assert source.bands == tuple(names)
        missing = (image[3] == 0) & (count % 2 == 0)
        assert (np.isnan(read(source)) == missing).all()


def test_a_fourth_band_that_is_named_otherwise_is_data(write_raster: Write) -> None:
    path = write_raster("a.tif", rgba())
    source = open_raster(path, bands=[*RGB, "nir"])
    assert source.bands == (*RGB, "nir") and not np.isnan(read(source)).any()
    plain = write_raster("b.tif", rgba().astype("uint16"), photometric="MINISBLACK", alpha="NO")
    with raises("band-names", key="data.bands", file=plain, mentions=["4 bands", "names 3"]):
        open_raster(plain, bands=RGB)
    assert np.isnan(read(open_raster(plain, bands=[*RGB, "alpha"]))[:, :6]).all()
