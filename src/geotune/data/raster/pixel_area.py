"""Ground area of pixels in square metres."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS as ProjCRS
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.transform import Affine

Array = NDArray[np.float64]


class PixelArea:
    """Area of the pixels of a scene in m², by position.

    In a projected CRS whose areas are accurate to 1 % at the scene's centre (UTM, national grids)
    and in a local CRS it is the planar area, one value for the scene, as in a GIS. Otherwise
    (degrees, Web Mercator) it is the area on the ellipsoid. Without a usable CRS, areas are NaN and
    `is_known` is false.
    """

    def __init__(self, crs: CRS | None, transform: Affine, shape: tuple[int, int]) -> None:
        self.transform = transform
        self.plane: float | None = None
        self.to_ground: Transformer | None = None
        if crs is None:
            return
        wkt = crs.to_wkt()
        try:
            own = ProjCRS.from_wkt(wkt)
            unit = own.axis_info[0].unit_conversion_factor if own.axis_info else 0.0
            plane = abs(transform.determinant) * unit**2
            geodetic = own.geodetic_crs
            if geodetic is None:  # a local CRS, such as that of a building site
                located = unit and transform != Affine.identity()
                self.plane = plane if located else None
                return
            if geodetic.ellipsoid is None or own.is_geocentric:
                return
            self.major = geodetic.ellipsoid.semi_major_metre
            self.eccentricity2 = 1 - (geodetic.ellipsoid.semi_minor_metre / self.major) ** 2
            self.to_ground = _to_geodetic(wkt)
        except ProjError:
            return
        if own.is_projected:
            centre = self._ground(np.array([shape[1] / 2]), np.array([shape[0] / 2]))[0]
            if abs(centre / plane - 1) < 0.01:
                self.plane = plane

    @property
    def is_known(self) -> bool:
        """Whether areas are available."""
        return self.plane is not None or self.to_ground is not None

    def at(self, columns: Array, rows: Array) -> Array:
        """Area in m² of a pixel at each position (N,)."""
        if self.plane is not None:
            return np.full(len(columns), self.plane)
        if self.to_ground is None:
            return np.full(len(columns), np.nan)
        return self._ground(columns, rows)

    def _ground(self, columns: Array, rows: Array) -> Array:
        """Area on the ellipsoid, from finite differences of longitude and latitude."""
        east, north = self._degrees(columns + 0.5, rows)
        west, south = self._degrees(columns - 0.5, rows)
        along = np.radians(_wrapped(east - west)), np.radians(north - south)
        east, north = self._degrees(columns, rows + 0.5)
        west, south = self._degrees(columns, rows - 0.5)
        down = np.radians(_wrapped(east - west)), np.radians(north - south)
        latitude = np.radians(self._degrees(columns, rows)[1])
        # radii of curvature M and N: an ellipsoid's area element is M N cos(latitude)
        element = (
            self.major**2
            * (1 - self.eccentricity2)
            * np.cos(latitude)
            / (1 - self.eccentricity2 * np.sin(latitude) ** 2) ** 2
        )
        area: Array = np.abs(along[0] * down[1] - along[1] * down[0]) * element
        return np.where(np.isfinite(area), area, np.nan)

    def _degrees(self, columns: Array, rows: Array) -> tuple[Array, Array]:
        assert self.to_ground is not None
        t = self.transform
        x, y = t.a * columns + t.b * rows + t.c, t.d * columns + t.e * rows + t.f
        longitude, latitude = self.to_ground.transform(x, y)
        return np.asarray(longitude), np.asarray(latitude)


@functools.lru_cache(maxsize=64)
def _to_geodetic(wkt: str) -> Transformer:
    own = ProjCRS.from_wkt(wkt)
    return Transformer.from_crs(own, own.geodetic_crs, always_xy=True)


def _wrapped(degrees: Array) -> Array:
    """A longitude difference in [-180, 180)."""
    return (degrees + 180) % 360 - 180
