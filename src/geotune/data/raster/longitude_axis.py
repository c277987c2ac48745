"""CRSs whose x axis is a longitude: x and x plus the width of the world are the same place.

These are degrees and the cylindrical projections in normal aspect, such as Mercator and plate
carrée. Transformations into such a CRS yield x within one width; files across the 180th meridian
have coordinates beyond it, in whatever turn their author chose.
"""

from __future__ import annotations

import functools
import math
import re
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pyproj import CRS as ProjCRS
from pyproj import Transformer
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.transform import Affine

from geotune.data.raster.crs import bounds

Array = NDArray[np.float64]

TURNS = (-2, -1, 0, 1, 2)
"""Whole turns by which coordinates may differ."""

NATURAL_LONGITUDE = 8802
"""EPSG's code of the parameter that rotates a cylindrical projection around the globe."""


class LongitudeAxis(NamedTuple):
    """The x axis of a CRS along which the longitude is proportional to x.

    Attributes:
        width: the width of the world in units of x.
        centre: x in the middle of those that transformations into the CRS yield.
        longitude: of the centre, in degrees east of Greenwich.
    """

    width: float
    centre: float
    longitude: float

    def contains(self, west: Any, east: Any) -> Any:
        """Whether transformations into the CRS can yield all x between `west` and `east`."""
        half = self.width / 2 * (1 + 1e-9)
        return (west >= self.centre - half) & (east <= self.centre + half)

    def nearest_turn(self, xs: Any, x: Any) -> Array:
        """The whole turns to add to `xs` so that they are nearest to `x`, in units of x."""
        return np.asarray(self.width * np.round((x - xs) / self.width))

    def turns_within(self, left: Any, right: Any, west: float, east: float) -> NDArray[np.bool_]:
        """After which of `TURNS` the intervals (N,) from `left` to `right` meet another, (5, N)."""
        turns = self.width * np.array(TURNS)[:, None]
        return np.asarray((left + turns < east) & (right + turns > west))


def longitude_axis(crs: CRS | ProjCRS | None) -> LongitudeAxis | None:
    """The x axis of a CRS; None if its longitude is not proportional to x."""
    return None if crs is None else _longitude_axis(crs.to_wkt())


@functools.lru_cache(maxsize=256)
def _longitude_axis(wkt: str) -> LongitudeAxis | None:
    try:
        own = _horizontal(ProjCRS.from_wkt(wkt))
    except ProjError:
        return None
    if own.is_derived and not own.is_projected:  # such as degrees around a rotated pole
        return None
    geodetic = own.geodetic_crs
    if geodetic is None or geodetic.prime_meridian is None or own.is_geocentric:
        return None
    greenwich = _greenwich_longitude(geodetic)
    if own.is_geographic:
        return LongitudeAxis(2 * np.pi / own.axis_info[0].unit_conversion_factor, 0.0, greenwich)
    natural = _parameters(own).get(NATURAL_LONGITUDE)
    if natural is None:
        return None
    unit = geodetic.axis_info[0].unit_conversion_factor
    centre = natural.value * natural.unit_conversion_factor
    longitudes, latitudes = np.meshgrid(np.radians([-150, -60, 0, 30, 150]), np.radians([-60, 20]))
    try:
        xs, ys = Transformer.from_crs(geodetic, own, always_xy=True).transform(
            (centre + longitudes) / unit, latitudes / unit
        )
    except ProjError:
        return None
    width = float(xs[0, -1] - xs[0, 0]) * 360 / 300
    middle = float(xs[0, 2])
    expected = middle + longitudes / (2 * np.pi) * width
    tolerance = 1e-9 * abs(width)
    along_x = np.abs(xs - expected) < tolerance
    along_y = np.abs(ys - ys[:, :1]) < tolerance
    if not (width > 0 and along_x.all() and along_y.all()):  # also if any is infinite
        return None
    return LongitudeAxis(width, middle, greenwich + float(np.degrees(centre)))


def centre(crs: CRS, transform: Affine, shape: tuple[int, int]) -> tuple[CRS, Affine]:
    """CRS and transform of a raster such that transformations into the CRS yield x in the raster.

    They yield x within one width of the world, but a raster across the 180th meridian has others.
    """
    axis = longitude_axis(crs)
    west, _, east, _ = bounds(transform, shape)
    if axis is None or axis.contains(west, east):
        return crs, transform
    return _centre(crs, axis, transform, (west + east) / 2)


def _centre(crs: CRS, axis: LongitudeAxis, transform: Affine, x: float) -> tuple[CRS, Affine]:
    wkt = crs.to_wkt()
    if not crs.is_geographic:
        shift = axis.centre - x
        turned = _with_meridian(wkt, axis.longitude - 360 * shift / axis.width)
    else:
        shift = float(axis.nearest_turn(x, axis.centre))  # GDAL adds at most one turn
        turned = _with_centre(wkt, x + shift)
    return CRS.from_wkt(turned), Affine.translation(shift, 0) @ transform


class Placement(NamedTuple):
    """Where a raster lies in the coordinates of another one.

    Attributes:
        crs: such that transformations into it yield coordinates in the raster.
        transform: from its pixels to coordinates.
        period: columns after which it begins again; 0 if it is there once.
        copies: how often it is there, side by side.
    """

    crs: CRS | None
    transform: Affine
    period: int = 0
    copies: int = 1


def place(
    crs: CRS | None,
    transform: Affine,
    shape: tuple[int, int],
    target: tuple[CRS | None, Affine, tuple[int, int]],
) -> Placement:
    """Place a raster in the turns in which it meets the grid `target`.

    In the same CRS, GDAL transforms no coordinates, so that the raster itself must be moved; one
    around the globe may meet the grid twice.
    """
    axis = longitude_axis(crs)
    if axis is None:
        return Placement(crs, transform)
    west, _, east, _ = bounds(transform, shape)
    left, _, right, _ = bounds(*target[1:])
    if target[0] != crs:
        other = longitude_axis(target[0])
        if axis.contains(west, east) and (other is None or other.contains(left, right)):
            return Placement(crs, transform)
        assert crs is not None
        return Placement(*_centre(crs, axis, transform, (west + east) / 2))
    turns = np.array(TURNS)[axis.turns_within(west, east, left, right)[:, 0]]
    if not len(turns) or not turns.any():
        return Placement(crs, transform)
    if transform.b:  # x depends on the row
        turns = turns[np.abs((west + east - left - right) / 2 + turns * axis.width).argmin()][None]
    first = turns[0] if transform.a > 0 else turns[-1]
    moved = Affine.translation(float(first * axis.width), 0) @ transform
    period = round(axis.width / abs(transform.a)) if transform.a else 0
    return Placement(crs, moved, period, len(turns))


@functools.lru_cache(maxsize=256)
def _with_meridian(wkt: str, longitude: float) -> str:
    """A cylindrical projection with another natural origin, in degrees east of Greenwich."""
    whole = ProjCRS.from_wkt(wkt)
    own = _horizontal(whole)
    natural = _parameters(own)[NATURAL_LONGITUDE]
    content = whole.to_json_dict()
    part = content
    while "conversion" not in part:  # bound to another datum, or with a height
        part = part.get("source_crs") or part["components"][0]
    part.pop("id", None)
    part["name"] = "unnamed"  # by its name PROJ would find the original
    for item in part["conversion"]["parameters"]:
        if item["name"] == natural.name:
            degrees = longitude - _greenwich_longitude(own)
            item["value"] = np.radians(degrees) / natural.unit_conversion_factor
    return str(ProjCRS.from_json_dict(content).to_wkt())


@functools.lru_cache(maxsize=256)
def _with_centre(wkt: str, degrees: float) -> str:
    """A geographic CRS into which GDAL transforms to degrees around `degrees`."""
    plane = CRS.from_wkt(ProjCRS.from_wkt(wkt).to_2d().to_wkt())
    name, rest = plane.to_wkt(version="WKT1_GDAL")[:-1].split(",", 1)
    rest = re.sub(r',AUTHORITY\["\w+","\w+"\]$', "", rest)
    # GDAL reuses transformations by code, or else WKT2, neither of which shows the centre
    return f'{name[:-1]} around {degrees}",{rest},EXTENSION["CENTER_LONG","{degrees}"]]'


def _greenwich_longitude(crs: ProjCRS) -> float:
    """Degrees of the prime meridian east of Greenwich."""
    meridian = crs.prime_meridian
    assert meridian is not None
    return math.degrees(float(meridian.longitude) * float(meridian.unit_conversion_factor))


def _horizontal(crs: ProjCRS) -> ProjCRS:
    """The part of a CRS that is neither a height nor a relation to another datum."""
    while (crs.is_bound and crs.source_crs) or crs.is_compound:
        inner = crs.source_crs if crs.is_bound else crs.sub_crs_list[0]
        assert inner is not None
        crs = inner
    return crs


def _parameters(crs: ProjCRS) -> dict[int, Any]:
    """The parameters of a projection by EPSG's code."""
    operation = crs.coordinate_operation
    if operation is None:
        return {}
    return {int(each.code): each for each in operation.params if str(each.code).isdigit()}
