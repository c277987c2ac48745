"""Acquisition time and location from tags, file names and coordinates."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from pyproj import Geod
from rasterio.transform import from_origin
from rasterio.warp import transform as transform_points

from geotune.data.raster.metadata import check_metadata, time_and_location
from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from helpers.errors import raises


def write(path: Path, **profile: Any) -> Path:
    options: dict[str, Any] = {
        "driver": "GTiff",
        "height": 8,
        "width": 10,
        "count": 2,
        "dtype": "uint8",
        "crs": "EPSG:32633",
        "transform": from_origin(500_000, 5_000_000, 10, 10),
        **profile,
    }
    with rasterio.open(path, "w", **options) as file:
        file.write(np.ones((2, 8, 10), "uint8"))
    return path


def tag(path: Path, **tags: str) -> RasterSource:
    with rasterio.open(path, "r+") as file:
        file.update_tags(**tags)
    return open_raster(path)


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("S2B_MSIL1C_20181013T101231_T32.tif", date(2018, 10, 13)),
        ("scene_2018-10-13.tif", date(2018, 10, 13)),
        ("HLS.S30.T10SEH.2018286T190321.tif", date(2018, 10, 13)),
        ("LC08_L1TP_193024_20180824_20200831.tif", date(2018, 8, 24)),
        ("busan.tif", None),
        ("tile_20181332.tif", None),
        ("run_1234567890.tif", None),
    ],
)
def test_date_in_the_file_name(tmp_path: Path, name: str, day: date | None) -> None:
    assert open_raster(write(tmp_path / name)).acquired == day


def test_tags_precede_the_name_which_precedes_the_writing_time(tmp_path: Path) -> None:
    named = write(tmp_path / "a_20200101.tif")
    assert tag(named, TIFFTAG_DATETIME="2024:05:06 07:08:09").acquired == date(2020, 1, 1)
    assert tag(named, ACQUISITIONDATETIME="2019-02-03 10:00:00").acquired == date(2019, 2, 3)
    unnamed = write(tmp_path / "b.tif")
    assert tag(unnamed, TIFFTAG_DATETIME="2024:05:06 07:08:09").acquired == date(2024, 5, 6)


def test_wavelengths_of_bands(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif")
    with rasterio.open(path, "r+") as file:
        file.descriptions = ("red", "other")
        file.update_tags(1, wavelength="665", wavelength_units="Nanometers")
        file.update_tags(2, wavelength="unknown")
    assert open_raster(path).wavelengths == {"red": 0.665}


@pytest.mark.parametrize(
    ("crs", "side", "metres"),
    [
        ("EPSG:32633", 10.0, 10.0),
        ("EPSG:2263", 10.0, 3.048),  # feet
        ("EPSG:4326", 0.0001, 11.132),
        ("EPSG:3857", 10.0, 10.0),
        ('LOCAL_CS["site",UNIT["metre",1]]', 0.5, 0.5),
        ('LOCAL_CS["site",UNIT["foot",0.3048]]', 10.0, 3.048),
        ("EPSG:4978", 10.0, None),  # geocentric
        (None, 1.0, None),
    ],
)
def test_ground_sampling_distance(
    tmp_path: Path, crs: str | None, side: float, metres: float | None
) -> None:
    transform = from_origin(0, 0, side, side) if crs else rasterio.Affine.identity()
    source = open_raster(write(tmp_path / "a.tif", crs=crs, transform=transform))
    assert source.gsd_m == (None if metres is None else pytest.approx(metres, rel=5e-3))


@pytest.mark.parametrize("latitude", [0, 40, 60, -70])
def test_pixels_of_web_mercator_are_measured_on_the_ground(tmp_path: Path, latitude: int) -> None:
    [x], [y] = transform_points("EPSG:4326", "EPSG:3857", [10], [latitude])
    path = write(tmp_path / "a.tif", crs="EPSG:3857", transform=from_origin(x, y, 10, 10))
    source = open_raster(path)
    corners = [source.transform @ corner for corner in ((0, 0), (10, 0), (10, 8), (0, 8))]
    xs, ys = transform_points("EPSG:3857", "EPSG:4326", *zip(*corners, strict=True))
    area, _ = Geod(ellps="WGS84").polygon_area_perimeter(xs, ys)
    assert source.gsd_m == pytest.approx(np.sqrt(abs(area) / 80), rel=5e-3)
    coarse = open_raster(path, resolution=source.gsd_m * 2)
    assert coarse.shape == (4, 5) and coarse.crs.to_epsg() == 3857


def test_time_and_location_of_a_window(tmp_path: Path) -> None:
    source = open_raster(write(tmp_path / "a_20181013.tif"))
    assert time_and_location(source, Window(0, 0, 8, 8), ()) == (None, None)
    time, location = time_and_location(source, Window(0, 0, 8, 8), ("time", "location"))
    assert time == ((2018.0, 286.0),)
    assert location is not None
    # the central meridian of zone 33 is 15 degrees east; 40 m east and south of the corner
    assert location[0] == pytest.approx(15 + 40 / (111_320 * np.cos(np.radians(45.15))), abs=1e-5)
    assert location[1] == pytest.approx(45.15, abs=0.01)
    _, further = time_and_location(source, Window(0, 1000, 8, 8), ("location",))
    assert further is not None and further[0] > location[0]


def test_missing_metadata_raises(tmp_path: Path) -> None:
    dated = open_raster(write(tmp_path / "a_20181013.tif"))
    plain = open_raster(write(tmp_path / "b.tif", crs=None))
    check_metadata({"a": dated, "b": plain}, ())
    check_metadata({"a": dated}, ("time", "location"))
    with raises("metadata-missing", key="backbone.metadata", file=plain.path, mentions=["time"]):
        check_metadata({"a": dated, "b": plain}, ("time",))
    with raises(
        "metadata-missing", key="backbone.metadata", file=plain.path, mentions=["location"]
    ):
        check_metadata({"b": plain}, ("location",))


def test_a_local_crs_has_no_location(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", crs='LOCAL_CS["site",UNIT["metre",1]]')
    source = open_raster(path)
    assert time_and_location(source, Window(0, 0, 8, 8), ("location",)) == (None, None)
    with raises("metadata-missing", key="backbone.metadata", file=path, mentions=["local"]):
        check_metadata({"a": source}, ("location",))
    assert open_raster(path, resolution=20).shape == (4, 5)


@pytest.mark.parametrize("west", [179.97, -180.03, 200.0])
def test_images_across_the_180th_meridian(tmp_path: Path, west: float) -> None:
    path = write(
        tmp_path / "a.tif", crs="EPSG:4326", transform=from_origin(west, -17, 0.005, 0.005)
    )
    source = open_raster(path)
    _, location = time_and_location(source, Window(0, 0, 8, 8), ("location",))
    assert location == pytest.approx(((west + 0.02 + 180) % 360 - 180, -17.02))
    utm = open_raster(path, resolution=250)
    assert utm.crs.to_epsg() == (32704 if west == 200 else 32760)
    image = utm.read(Window(0, 0, *utm.shape))
    assert np.isnan(image).mean() < 0.15 and not np.isnan(image[:, 2:-2, 2:-2]).any()
