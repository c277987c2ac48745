"""Tiles of rasters."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.transform import from_bounds, from_origin
from rasterio.vrt import WarpedVRT

from geotune.view.layers import raster_reader, resample_to_tile
from geotune.view.map_grid import TILE, WORLD, MapGrid, Tile
from helpers.inference_scenes import write_scene


def tile_of(grid: MapGrid, z: int) -> Tile:
    """The tile at the centre of a scene."""
    west, south, east, north = grid.bounds
    lon, lat = (west + east) / 2, (south + north) / 2
    y = (1 - math.asinh(math.tan(math.radians(lat))) / math.pi) / 2
    return Tile(z, int((lon + 180) / 360 * 2**z), int(y * 2**z))


@pytest.mark.parametrize("crs", ["EPSG:32633", "EPSG:4326"])
def test_a_tile_is_what_gdal_warps(tmp_path: Path, crs: str) -> None:
    """An independent implementation of the same resampling, nearest neighbour."""
    rng = np.random.default_rng(0)
    # smooth, so that another rounding at the border of two pixels matters little
    image = np.cumsum(rng.random((1, 300, 400)).astype(np.float32), axis=2)
    utm = crs == "EPSG:32633"
    transform = from_origin(500_000, 5_000_000, 10, 10) if utm else from_origin(11, 48, 1e-4, 1e-4)
    source = write_scene(tmp_path / "a.tif", image, crs=crs, transform=transform, bands=("red",))
    grid = MapGrid.of(source)
    tile = tile_of(grid, grid.native_zoom)
    values = resample_to_tile(raster_reader(source), grid, tile)
    assert values is not None
    side = WORLD / 2**tile.z
    west, north = -WORLD / 2 + tile.x * side, WORLD / 2 - tile.y * side
    with (
        rasterio.open(tmp_path / "a.tif") as file,
        WarpedVRT(
            file,
            crs="EPSG:3857",
            transform=from_bounds(west, north - side, west + side, north, TILE, TILE),
            width=TILE,
            height=TILE,
            resampling=Resampling.nearest,
        ) as warped,
    ):
        expected = warped.read(1)
    both = np.isfinite(values[0]) & (expected != -1)
    assert both.mean() > 0.5
    assert (np.isfinite(values[0]) == (expected != -1)).mean() > 0.995
    assert (values[0] == expected)[both].mean() > 0.99


def test_an_overview_is_read_where_pixels_are_smaller_than_those_of_the_tile(
    tmp_path: Path,
) -> None:
    image = np.arange(512 * 512, dtype=np.float32).reshape(1, 512, 512)
    source = write_scene(tmp_path / "a.tif", image, bands=("red",))
    grid = MapGrid.of(source)
    read = raster_reader(source)
    steps: list[tuple[int, int]] = []

    def counting(window, step):  # type: ignore[no-untyped-def]
        steps.append((step, read(window, step).size))
        return read(window, step)

    values = resample_to_tile(counting, grid, tile_of(grid, grid.native_zoom - 3))
    assert values is not None
    ((step, size),) = steps
    assert 4 <= step <= 8
    assert size <= (512 / step + 2) ** 2
    assert np.isfinite(values).any()


def test_nothing_is_read_outside(tmp_path: Path) -> None:
    source = write_scene(tmp_path / "a.tif", np.ones((1, 32, 32), np.float32), bands=("red",))

    def refuse(window, step):  # type: ignore[no-untyped-def]
        raise AssertionError("read")

    assert resample_to_tile(refuse, MapGrid.of(source), Tile(10, 0, 0)) is None


def test_pixels_without_data_stay_empty(tmp_path: Path) -> None:
    image = np.ones((1, 64, 64), np.float32)
    image[:, :, 32:] = -1  # nodata
    source = write_scene(tmp_path / "a.tif", image, bands=("red",))
    grid = MapGrid.of(source)
    values = resample_to_tile(raster_reader(source), grid, tile_of(grid, grid.native_zoom))
    assert values is not None
    inside = np.isfinite(values[0])
    cols, _ = grid.pixels_of_tile(tile_of(grid, grid.native_zoom))
    assert inside.any() and cols[inside].max() < 32
