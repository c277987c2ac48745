"""Ground areas of pixels."""

from __future__ import annotations

import numpy as np
import pytest
from pyproj import Geod
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin

from geotune.data.raster.pixel_area import PixelArea


def geodesic(west: float, north: float, size: float) -> float:
    x = [west, west + size, west + size, west]
    y = [north, north, north - size, north - size]
    return abs(Geod(ellps="WGS84").polygon_area_perimeter(x, y)[0])


@pytest.mark.parametrize("latitude", [0.5, 35.0, -60.0])
def test_geographic_crs_gives_the_area_on_the_ellipsoid(latitude: float) -> None:
    size = 0.001
    area = PixelArea(CRS.from_epsg(4326), from_origin(10, latitude, size, size), (100, 100))
    result = area.at(np.array([0.5]), np.array([0.5]))[0]
    assert result == pytest.approx(geodesic(10, latitude, size), rel=1e-5)


def test_web_mercator_gives_the_ground_area() -> None:
    """At 60 degrees a pixel of 10 m covers a quarter of 100 m²."""
    north = 8399738.0  # 60 degrees
    area = PixelArea(CRS.from_epsg(3857), from_origin(0, north, 10, 10), (4, 4))
    assert area.at(np.array([0.0]), np.array([0.0]))[0] == pytest.approx(25.0, rel=0.01)


def test_utm_gives_the_planar_area_also_if_rotated() -> None:
    rotated = from_origin(5e5, 5e6, 10, 20) @ Affine.rotation(30)
    area = PixelArea(CRS.from_epsg(32633), rotated, (50, 50))
    np.testing.assert_allclose(area.at(np.zeros(3), np.zeros(3)), 200.0)


def test_feet_are_converted_to_metres() -> None:
    area = PixelArea(CRS.from_epsg(2263), from_origin(1e6, 2e5, 10, 10), (50, 50))
    assert area.at(np.zeros(1), np.zeros(1))[0] == pytest.approx(100 * 0.3048006096**2)


@pytest.mark.parametrize("crs", [None, CRS.from_wkt('LOCAL_CS["made",UNIT["metre",1]]')])
def test_no_usable_crs_gives_no_area(crs: CRS | None) -> None:
    area = PixelArea(crs, Affine.identity(), (5, 5))
    assert not area.is_known
    assert np.isnan(area.at(np.zeros(2), np.zeros(2))).all()
