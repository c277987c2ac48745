"""Where and when images were taken."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.transform import from_origin

from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.stac.extent import MAX_POLYGONS, extent_of


@pytest.fixture
def source(tmp_path: Path) -> RasterSource:
    """10 x 10 pixels of a degree, from 20 degrees east and 50 degrees north."""
    path = tmp_path / "a.tif"
    profile = {"driver": "GTiff", "width": 10, "height": 10, "count": 1, "dtype": "uint8"}
    with rasterio.open(
        path, "w", crs="EPSG:4326", transform=from_origin(20, 50, 1, 1), **profile
    ) as file:
        file.descriptions = ("red",)
    return open_raster(path)


def moved(source: RasterSource, west: float) -> RasterSource:
    return replace(source, transform=from_origin(west, 50, 1, 1))


def test_the_area_is_the_union_of_the_images(source: RasterSource) -> None:
    extent = extent_of([source, moved(source, 25)])
    assert extent["bbox"] == [20, 40, 35, 50]
    assert extent["geometry"]["type"] == "Polygon"
    apart = extent_of([source, moved(source, 40)])
    assert apart["geometry"]["type"] == "MultiPolygon" and apart["bbox"] == [20, 40, 50, 50]


def test_many_areas_become_their_hull(source: RasterSource) -> None:
    small = replace(source, grid_shape=(1, 1))
    extent = extent_of([moved(small, -170 + 2 * i) for i in range(MAX_POLYGONS + 1)])
    assert extent["geometry"]["type"] == "Polygon"
    assert extent["bbox"] == [-170, 49, -170 + 2 * MAX_POLYGONS + 1, 50]


def test_the_hull_of_many_images_is_that_of_their_corners(
    source: RasterSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    mercator = CRS.from_epsg(3857)
    metres = replace(source, crs=mercator, transform=from_origin(0, 0, 111_319.49, 111_325.14))
    sources = [source, metres]
    expected = extent_of(sources)["bbox"]
    monkeypatch.setattr("geotune.stac.extent.MAX_OUTLINES", 1)
    extent = extent_of(sources)
    assert extent["geometry"]["type"] == "Polygon"
    assert extent["bbox"] == pytest.approx(expected, abs=0.1)
    assert expected == pytest.approx([0, -10, 30, 50], abs=0.1)


def test_an_area_across_the_180th_meridian_is_cut(source: RasterSource) -> None:
    extent = extent_of([moved(source, 175)])
    assert extent["geometry"]["type"] == "MultiPolygon"
    assert extent["bbox"] == [-180, 40, 180, 50]


def test_without_georeference_there_is_no_area(source: RasterSource) -> None:
    bare = replace(source, crs=None)
    local = replace(source, crs=CRS.from_wkt('LOCAL_CS["site",UNIT["metre",1]]'))
    for one in (bare, local):
        extent = extent_of([source, one])
        assert extent["geometry"] is None and extent["bbox"] is None
    assert extent_of([])["geometry"] is None


def test_dates_are_known_if_every_image_has_one(source: RasterSource) -> None:
    first = replace(source, acquired=date(2020, 5, 1))
    series = replace(source, dates=(date(2019, 1, 1), date(2021, 1, 1)))
    extent = extent_of([first, series])
    assert (extent["start"], extent["end"]) == ("2019-01-01", "2021-01-01")
    extent = extent_of([first, source])
    assert (extent["start"], extent["end"]) == (None, None)
