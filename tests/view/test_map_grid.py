"""Where pixels lie on the map."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.crs import CRS
from rasterio.transform import Affine, from_origin

from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.view.map_grid import TILE, WORLD, MapGrid, Tile


def raster(
    crs: str | None, transform: Affine, shape: tuple[int, int] = (60, 80), **options: object
) -> RasterSource:
    source = RasterSource(
        bands=("a",),
        band_files=(),
        named=True,
        grid_shape=shape,
        crs=None if crs is None else CRS.from_user_input(crs),
        transform=transform,
    )
    return replace(source, **options)  # type: ignore[arg-type]


def tile_at(grid: MapGrid, lon: float, lat: float, z: int) -> tuple[Tile, int, int]:
    """The tile of a place, and the column and row of its pixel in the tile."""
    x = (lon + 180) / 360 * 2**z
    y = (1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2 * 2**z
    return Tile(z, int(x), int(y)), int(x % 1 * TILE), int(y % 1 * TILE)


GRIDS = {
    "utm": ("EPSG:32633", from_origin(500_000, 5_000_000, 10, 10)),
    "degrees": ("EPSG:4326", from_origin(11.0, 48.0, 1e-4, 1e-4)),
    "degrees to 360": ("EPSG:4326", from_origin(291.0, 48.0, 1e-4, 1e-4)),
    "south up": ("EPSG:32733", Affine(10, 0, 500_000, 0, 10, 6_000_000)),
    "rotated": ("EPSG:32633", Affine(8, 3, 500_000, 3, -8, 5_000_000)),
    "map": ("EPSG:3857", from_origin(1_000_000, 6_000_000, 2, 2)),
    "none": (None, Affine.identity()),
    "pole": ("EPSG:3031", from_origin(10_000, 10_000, 10, 10)),
}


@pytest.mark.parametrize("name", GRIDS)
@given(share=st.tuples(st.floats(0.01, 0.99), st.floats(0.01, 0.99)), z=st.integers(5, 20))
@settings(max_examples=15, deadline=None)
def test_a_pixel_is_found_at_its_place(name: str, share: tuple[float, float], z: int) -> None:
    grid = MapGrid.of(raster(*GRIDS[name]))
    col, row = share[0] * 80, share[1] * 60
    (lon,), (lat,) = grid.lonlat(np.array([col]), np.array([row]))
    west, south, east, north = grid.bounds
    assert west <= lon <= east and south <= lat <= north
    if min(col % 1, row % 1) > 1e-3 and max(col % 1, row % 1) < 1 - 1e-3:
        assert grid.pixel_at(lon, lat) == (int(col), int(row))
    tile, at_col, at_row = tile_at(grid, lon, lat, z)
    cols, rows = grid.pixels_of_tile(tile)
    # within the pixel of the tile, whose side is at most so many pixels of the scene
    side = np.hypot(*np.gradient(cols)).max() + np.hypot(*np.gradient(rows)).max()
    assert abs(cols[at_row, at_col] - col) <= side and abs(rows[at_row, at_col] - row) <= side


def test_a_tile_of_utm_agrees_with_the_exact_projection() -> None:
    grid = MapGrid.of(raster(*GRIDS["utm"], shape=(10_980, 10_980)))
    west, south, east, north = grid.bounds
    tile, *_ = tile_at(grid, (west + east) / 2, (south + north) / 2, 9)
    cols, rows = grid.pixels_of_tile(tile)
    project = Transformer.from_crs(3857, 32633, always_xy=True)
    centers = np.arange(TILE) + 0.5
    xs = -WORLD / 2 + (tile.x + centers / TILE) * WORLD / 2**9
    ys = WORLD / 2 - (tile.y + centers / TILE) * WORLD / 2**9
    exact = project.transform(*np.meshgrid(xs, ys))
    inside = (cols > 0) & (cols < 10_980) & (rows > 0) & (rows < 10_980)
    pixels = (exact[0] - 500_000) / 10, (5_000_000 - exact[1]) / 10
    step = WORLD / 2**9 / TILE / 10 * 0.7  # pixels of the scene per pixel of the tile, about
    assert np.abs(cols - pixels[0])[inside].max() < step / 10
    assert np.abs(rows - pixels[1])[inside].max() < step / 10


def test_a_scene_without_crs_keeps_its_proportions() -> None:
    grid = MapGrid.of(raster(*GRIDS["none"], shape=(100, 300)))
    west, south, east, north = grid.bounds
    assert grid.local
    assert (east - west) / (north - south) == pytest.approx(3, rel=1e-6)
    assert west == pytest.approx(-east) and south == pytest.approx(-north)


def test_a_pole_is_shown_beside_the_map() -> None:
    assert MapGrid.of(raster(*GRIDS["pole"])).local
    assert not MapGrid.of(raster(*GRIDS["utm"])).local


def test_shapes_without_crs_follow_the_pixels_of_their_scene() -> None:
    transform = Affine(2, 0, 100, 0, -2, 500)
    grid = MapGrid.of(raster(None, transform))
    shapes = np.array([shapely.Point(100 + 2 * 30, 500 - 2 * 20)], dtype=object)
    placed = grid.features_to_lonlat(shapes, None)[0]
    expected = grid.lonlat(np.array([30.0]), np.array([20.0]))
    assert [placed.x, placed.y] == pytest.approx(expected[:, 0].tolist())


def test_shapes_in_another_crs_meet_the_scene() -> None:
    grid = MapGrid.of(raster(*GRIDS["utm"]))
    west, south, east, north = grid.bounds
    shapes = np.array([shapely.Point((west + east) / 2, (south + north) / 2)], dtype=object)
    placed = grid.features_to_lonlat(shapes, "EPSG:4326")[0]
    assert (placed.x, placed.y) == pytest.approx((shapes[0].x, shapes[0].y))


def test_a_part_of_an_image_lies_where_it_was_cut() -> None:
    whole = raster(*GRIDS["utm"])
    part = MapGrid.of(whole.crop(Window(10, 20, 30, 40)))
    assert part.lonlat(np.array([0.0]), np.array([0.0])) == pytest.approx(
        MapGrid.of(whole).lonlat(np.array([20.0]), np.array([10.0]))
    )


@pytest.mark.parametrize(
    "tile", [Tile(25, 0, 0), Tile(3, 8, 0), Tile(3, 0, 8), Tile(3, -1, 0), Tile(-1, 0, 0)]
)
def test_tiles_that_do_not_exist(tile: Tile) -> None:
    assert not tile.exists
    assert Tile(3, 7, 7).exists


def test_zoom_levels_follow_the_pixel(tmp_path: Path) -> None:
    fine = MapGrid.of(raster("EPSG:3857", from_origin(0, 0, 1, 1)))
    coarse = MapGrid.of(raster("EPSG:3857", from_origin(0, 0, 16, 16)))
    assert fine.native_zoom == coarse.native_zoom + 4
    assert fine.min_zoom(16) == fine.native_zoom - 4


@pytest.mark.parametrize("sides", [(0, 0), (10, 0), (1e-300, -1e-300)])
def test_pixels_without_an_area_are_shown_without_a_place(sides: tuple[float, float]) -> None:
    own = Affine(sides[0], 0, 5e5, 0, sides[1], 5e6)
    grid = MapGrid.of(raster("EPSG:32633", own))
    assert grid.local and grid.pixel_at(0, 0) == (40, 30)
    placed = grid.features_to_lonlat(np.array([shapely.Point(40, 30)]), None)[0]
    assert (placed.x, placed.y) == pytest.approx((0, 0), abs=1e-12)
