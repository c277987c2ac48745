"""Scenes of several dates and several modalities."""

from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rasterio.transform import from_origin

from geotune.config.data_options import AugmentOptions
from geotune.data.checks.scan import band_statistics, scan_scenes
from geotune.data.labels.open_labels import open_labels
from geotune.data.raster.metadata import time_and_location
from geotune.data.raster.windows import Window
from geotune.data.scenes.find import find_files
from geotune.data.scenes.open_scenes import open_rasters, open_scenes
from geotune.data.window_datasets import RandomWindowDataset
from geotune.types import Batch
from helpers.errors import raises

DAYS = ("20200105", "20200612", "20201101")


def value(day: int, band: int) -> float:
    return 100.0 * day + 10 * band


@pytest.fixture
def series(write_raster: Any, tmp_path: Path) -> Path:
    """Two scenes of three dates and two bands, a file each; pixels encode day and band."""
    for scene in "ab":
        for d, day in enumerate(DAYS):
            for b, band in enumerate(("red", "nir")):
                pixels = np.full((40, 40), value(d, b), dtype="float32")
                write_raster(f"s/{scene}_{day}_{band}.tif", pixels)
        write_raster(f"l/{scene}.tif", np.ones((40, 40), dtype="uint8"))
    return tmp_path


def test_several_dates_have_a_time_axis(series: Path) -> None:
    sources = open_rasters(
        f"{series}/s/{{scene}}_{{date}}_{{band}}.tif", wanted_bands=["nir", "red"]
    )
    assert list(sources) == ["a", "b"]
    source = sources["a"]
    assert source.dates == (date(2020, 1, 5), date(2020, 6, 12), date(2020, 11, 1))
    image = source.read(Window(-1, 0, 3, 4))
    assert image.shape == (2, 3, 3, 4) and np.isnan(image[:, :, 0]).all()
    expected = [[value(d, b) for d in range(3)] for b in (1, 0)]
    assert image[:, :, 1, 0].tolist() == expected
    assert source.read(Window(0, 0, 1, 1), ["red"])[:, :, 0, 0].tolist() == expected[1:]
    time, _ = time_and_location(source, Window(0, 0, 1, 1), ["time"])
    assert time == ((2020, 5), (2020, 164), (2020, 306))


def test_batches_of_several_dates(series: Path) -> None:
    scenes = open_scenes(
        partial(open_labels, classes=["background", "ship"]),
        scenes=f"{series}/s/{{scene}}_{{date}}_{{band}}.tif",
        labels=f"{series}/l/{{stem}}.tif",
    )
    scans = scan_scenes(scenes, 16)
    result = band_statistics(scenes, scans)
    assert result.bands == ("nir", "red")
    assert result.mean == pytest.approx([np.mean([value(d, b) for d in range(3)]) for b in (1, 0)])
    varied = AugmentOptions(rotate=180, scale=(0.8, 1.2), band_brightness=0.1)
    windows = RandomWindowDataset(
        scenes, scans, 16, augment=varied, brightness=0.1, band_std=result.std, metadata=["time"]
    )
    inputs = Batch.from_samples([windows[0], windows[1]]).inputs
    assert inputs["images"].shape == (2, 2, 3, 16, 16) and inputs["time"].shape == (2, 3, 2)


def test_nodata_masks_its_date_only(write_raster: Any, tmp_path: Path) -> None:
    for d, day in enumerate(DAYS):
        pixels = np.full((2, 8, 8), d + 1, dtype="float32")
        pixels[:, d, d] = np.nan
        write_raster(f"s/a_{day}.tif", pixels, bands=["red", "nir"], nodata=float("nan"))
    [source] = open_rasters(f"{tmp_path}/s/{{scene}}_{{date}}.tif").values()
    image = source.read(Window(0, 0, 8, 8))
    for d in range(3):
        assert np.argwhere(np.isnan(image[0, d])).tolist() == [[d, d]]


def test_inconsistent_and_invalid_dates_raise(write_raster: Any, tmp_path: Path) -> None:
    write_raster("s/a_20200105.tif", np.ones((8, 8)))
    write_raster("s/a_20200612.tif", np.ones((8, 9)))
    with raises("grid-mismatch", mentions=["a_20200105.tif", "a_20200612.tif", "pixels"]):
        open_rasters(f"{tmp_path}/s/{{scene}}_{{date}}.tif")
    write_raster("t/a_20201399.tif", np.ones((8, 8)))
    with raises("pattern-invalid", key="data.scenes", mentions=["'20201399'", "{date}"]):
        find_files(f"{tmp_path}/t/{{scene}}_{{date}}.tif")


def test_modalities_are_stacked_as_bands(write_raster: Any, tmp_path: Path) -> None:
    """Radar is resampled to the optical grid; a band of both gets the modality's name."""
    for scene in "ab":
        optical = np.stack([np.full((40, 40), 1.0), np.full((40, 40), 2.0)]).astype("float32")
        write_raster(f"s2/{scene}.tif", optical, bands=["B02", "angle"])
        radar = np.stack([np.full((20, 20), 3.0), np.full((20, 20), 4.0)]).astype("float32")
        coarse = from_origin(500_000, 5_000_000, 20, 20)
        write_raster(f"s1/{scene}.tif", radar, bands=["VV", "angle"], transform=coarse)
    patterns = {"S2L2A": f"{tmp_path}/s2/*.tif", "S1GRD": f"{tmp_path}/s1/*.tif"}
    with raises("grid-mismatch", key="data.resolution"):
        open_rasters(patterns)
    wanted = ["B02", "S2L2A:angle", "VV", "S1GRD:angle"]
    source = open_rasters(patterns, wanted_bands=wanted, resolution=10)["b"]
    assert source.bands == tuple(wanted) and source.shape == (40, 40)
    assert source.read(Window(5, 5, 1, 1))[:, 0, 0].tolist() == [1, 2, 3, 4]
    (tmp_path / "s1" / "b.tif").unlink()
    with raises("scenes-missing", key="data.scenes", mentions=["S1GRD", "scene b"]):
        open_rasters(patterns)
    with raises("recipe-invalid", key="data.bands"):
        open_rasters(patterns["S2L2A"], bands={"S2L2A": ["B02", "angle"]})
