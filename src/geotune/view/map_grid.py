"""Where the pixels of a scene lie on the web map (EPSG:3857).

A scene without a CRS, or beyond the map's latitudes, lies at latitude and longitude 0, one pixel
being one unit of the map, so that it has its own proportions.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.transform import Affine, from_gcps

from geotune.data.raster.crs import WGS84, transformer
from geotune.data.raster.source import RasterSource, apply_affine
from geotune.errors import GeotuneError

TILE = 256
"""Side of a tile in pixels."""

WORLD = 2 * math.pi * 6_378_137
"""Side of the map in its units, metres at the equator."""

MAX_LATITUDE = 85.06
"""The map ends there."""

MAX_ZOOM = 24
"""Tiles of higher zoom levels are never made."""

MERCATOR = CRS.from_epsg(3857)

_NODES = 17
"""Pixels of a tile are projected at this many rows and columns, and interpolated between."""

_COARSE_ZOOM = 8
"""Below it, tiles are so wide that each pixel is projected."""

Coordinates = NDArray[np.float64]


class Tile(NamedTuple):
    """A square of the map: `4 ** z` of them cover it, counted from its north-western corner."""

    z: int
    x: int
    y: int

    @property
    def exists(self) -> bool:
        """Whether the map has such a tile."""
        return (
            0 <= self.z <= MAX_ZOOM and 0 <= min(self.x, self.y) <= max(self.x, self.y) < 2**self.z
        )


@dataclass(frozen=True)
class MapGrid:
    """A scene's grid of pixels on the map.

    Attributes:
        crs: of `transform`; that of the map for scenes without one.
        transform: from columns and rows to `crs`.
        shape: (H, W).
        file_transform: from columns and rows to the coordinates of the scene's own files.
        local: whether its location on Earth is not shown.
    """

    crs: CRS
    transform: Affine
    shape: tuple[int, int]
    file_transform: Affine
    local: bool

    @classmethod
    def of(cls, raster: RasterSource) -> MapGrid:
        """The grid of a scene; that of ground control points is the nearest affine one."""
        own = raster.transform
        if raster.area is not None:
            own = own @ Affine.translation(raster.area.col, raster.area.row)
        if own.is_degenerate:  # pixels without an area
            return cls._local(raster.shape, Affine.identity())
        crs, transform = raster.crs, own
        control = raster.control_points
        if control is not None and len(control.points) >= 3:
            crs, transform = control.crs, from_gcps(control.in_crs(control.crs))
        elif crs is None or transform == Affine.identity():
            return cls._local(raster.shape, own)
        grid = cls(crs, transform, raster.shape, own, local=False)
        return grid if grid._is_on_map() else cls._local(raster.shape, own)

    @classmethod
    def _local(cls, shape: tuple[int, int], own: Affine) -> MapGrid:
        transform = Affine(1.0, 0.0, -shape[1] / 2, 0.0, -1.0, shape[0] / 2)
        return cls(MERCATOR, transform, shape, own, local=True)

    def _is_on_map(self) -> bool:
        try:
            points = self.lonlat(*self._outline())
        except (GeotuneError, ProjError):  # such as the local CRS of a building site
            return False
        return bool(np.isfinite(points).all() and np.abs(points[1]).max() < MAX_LATITUDE)

    def _outline(self) -> tuple[Coordinates, Coordinates]:
        """Columns and rows of points all around the scene."""
        height, width = self.shape
        steps = np.linspace(0, 1, 9)
        ones, zeros = np.ones(9), np.zeros(9)
        cols = np.concatenate([steps, steps, zeros, ones]) * width
        return cols, np.concatenate([zeros, ones, steps, steps]) * height

    def lonlat(self, cols: Coordinates, rows: Coordinates) -> Coordinates:
        """Longitude and latitude `(2, N)` of columns and rows, in one turn around the Earth."""
        xs, ys = apply_affine(self.transform, np.asarray(cols, float), np.asarray(rows, float))
        lon, lat = transformer(self.crs, WGS84).transform(xs, ys)
        return np.stack([_turn_to(lon, self._center_longitude), lat])

    @functools.cached_property
    def _center_longitude(self) -> float:
        height, width = self.shape
        x, y = self.transform @ (width / 2, height / 2)
        longitude = float(transformer(self.crs, WGS84).transform(x, y)[0])
        return (longitude + 180) % 360 - 180 if math.isfinite(longitude) else 0.0

    @functools.cached_property
    def bounds(self) -> tuple[float, float, float, float]:
        """West, south, east and north in degrees; east is above 180 across the date line."""
        lon, lat = self.lonlat(*self._outline())
        return float(lon.min()), float(lat.min()), float(lon.max()), float(lat.max())

    @functools.cached_property
    def native_zoom(self) -> int:
        """The zoom level from which a pixel of the scene spans at least one of the tiles."""
        west, south, east, north = self.bounds
        height, width = self.shape
        degrees = min((east - west) / width, (north - south) / height)
        units = max(degrees, 1e-9) / 360 * WORLD
        return max(0, min(MAX_ZOOM - 2, math.ceil(math.log2(WORLD / TILE / units))))

    def min_zoom(self, max_step: int) -> int:
        """The zoom level from which a pixel of a tile spans at most `max_step` of the scene."""
        return max(0, self.native_zoom - int(math.log2(max_step)))

    def pixels_of_tile(self, tile: Tile) -> tuple[Coordinates, Coordinates]:
        """Columns and rows `(TILE, TILE)` of the centres of a tile's pixels; NaN off the CRS."""
        exact = tile.z < _COARSE_ZOOM
        nodes = np.arange(TILE) + 0.5 if exact else np.linspace(0, TILE, _NODES)
        side = WORLD / 2**tile.z
        xs = -WORLD / 2 + (tile.x + nodes / TILE) * side
        ys = WORLD / 2 - (tile.y + nodes / TILE) * side
        cols, rows = self._from_mercator(*np.meshgrid(xs, ys))
        if not exact:
            weights = _interpolation()
            cols, rows = weights @ cols @ weights.T, weights @ rows @ weights.T
        return cols, rows

    def pixel_at(self, lon: float, lat: float) -> tuple[int, int] | None:
        """The column and row of the pixel at a place; None outside the scene."""
        x, y = transformer(WGS84, MERCATOR).transform(lon, lat)
        cols, rows = self._from_mercator(np.array([x]), np.array([y]))
        if not np.isfinite([cols[0], rows[0]]).all():
            return None
        col, row = math.floor(cols[0]), math.floor(rows[0])
        return (col, row) if 0 <= col < self.shape[1] and 0 <= row < self.shape[0] else None

    def _from_mercator(self, xs: Coordinates, ys: Coordinates) -> tuple[Coordinates, Coordinates]:
        if self.crs != MERCATOR:
            xs, ys = transformer(MERCATOR, self.crs).transform(xs, ys)
        cols, rows = apply_affine(~self.transform, xs, ys)
        if self.crs.is_geographic and self.transform.a:
            # a scene may count longitudes from 0 to 360
            turn = abs(360 / self.transform.a)
            cols = cols - turn * np.round((cols - self.shape[1] / 2) / turn)
        outside = ~(np.isfinite(cols) & np.isfinite(rows))
        return np.where(outside, np.nan, cols), np.where(outside, np.nan, rows)

    def features_to_lonlat(self, shapes: NDArray[Any], crs: Any) -> NDArray[Any]:
        """Shapes of the scene's files as longitude and latitude.

        Args:
            shapes: in `crs`; without one in the coordinates of the scene's files.
            crs: as `pyproj.CRS` reads it; None if unknown.
        """
        if crs is not None and not self.local:
            source = CRS.from_user_input(crs)
            project = transformer(source, WGS84).transform
            center = self._center_longitude

            def place(points: Coordinates) -> Coordinates:
                lon, lat = project(points[:, 0], points[:, 1])
                return np.stack([_turn_to(lon, center), lat], axis=1)
        else:
            inverse = ~self.file_transform

            def place(points: Coordinates) -> Coordinates:
                return self.lonlat(*apply_affine(inverse, points[:, 0], points[:, 1])).T

        placed: NDArray[Any] = shapely.transform(shapes, place)
        return placed


def _turn_to(longitudes: Any, center: float) -> Coordinates:
    """The longitudes within 180 degrees of another."""
    values = np.asarray(longitudes, dtype=np.float64)
    return values - 360 * np.round((values - center) / 360)


@functools.cache
def _interpolation() -> Coordinates:
    """Weights `(TILE, _NODES)` of linear interpolation at the centres of pixels."""
    nodes = np.linspace(0, TILE, _NODES)
    centers = np.arange(TILE) + 0.5
    return np.stack([np.interp(centers, nodes, unit) for unit in np.eye(_NODES)], axis=1)
