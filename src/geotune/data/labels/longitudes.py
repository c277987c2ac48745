"""Longitudes that differ by whole turns: labels of scenes in degrees at the 180th meridian.

A scene across the meridian has longitudes such as 179.5 to 180.5, its labels -179.5, and GeoJSON
cuts polygons there. Shapes are moved by whole turns to where the scene is, and joined again.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import shapely
from numpy.typing import NDArray

from geotune.data.raster.crs import bounds
from geotune.data.raster.source import RasterSource

Shapes = NDArray[np.object_]

TURNS = (-2, -1, 0, 1, 2)


def nearest_turn(longitudes: NDArray[np.float64], raster: RasterSource) -> NDArray[np.float64]:
    """The degrees to add to longitudes so that they are nearest to the centre of the scene."""
    west, _, east, _ = bounds(raster.transform, raster.shape)
    return np.asarray(360 * np.round(((west + east) / 2 - longitudes) / 360))


def within_turn(
    left: NDArray[np.float64], right: NDArray[np.float64], west: float, east: float
) -> NDArray[np.bool_]:
    """Which intervals of longitudes intersect another one, up to whole turns."""
    hits = [(left + 360 * k < east) & (right + 360 * k > west) for k in TURNS]
    return np.asarray(np.any(hits, axis=0))


def unwrap(shapes: Shapes, raster: RasterSource) -> Shapes:
    """Shapes whose vertices lie on both sides of the 180th meridian, on that of the scene."""
    left, _, right, _ = shapely.bounds(shapes).T
    wide = right - left > 180
    if wide.any():

        def move(points: NDArray[np.float64]) -> NDArray[np.float64]:
            return points + np.stack([nearest_turn(points[:, 0], raster), 0 * points[:, 1]], axis=1)

        shapes[wide] = shapely.transform(shapes[wide], move)
    return shapes


def beside_scene(shapes: Shapes, raster: RasterSource) -> Shapes:
    """Shapes in degrees, moved by whole turns to the longitudes of the scene.

    A part that lies in the scene after several turns is repeated.
    """
    west, _, east, _ = bounds(raster.transform, raster.shape)
    left, _, right, _ = shapely.bounds(shapes).T
    in_one_turn = (left >= -180) & (right <= 180) | np.isnan(left)
    if west >= -180 and east <= 180 and in_one_turn.all():
        return shapes
    parts, owners = shapely.get_parts(shapes, return_index=True)
    left, _, right, _ = shapely.bounds(parts).T
    turns = 360 * np.array(TURNS)[:, None]
    copies = (left + turns < east) & (right + turns > west)
    nearest = nearest_turn((left + right) / 2, raster)
    copies |= (turns == nearest) & ~copies.any(axis=0)
    pieces: dict[int, list[shapely.Geometry]] = defaultdict(list)
    for part, turn in np.argwhere(copies.T):
        shift = (360 * TURNS[turn], 0)
        pieces[owners[part]].append(shapely.transform(parts[part], lambda xy, by=shift: xy + by))
    result = shapes.copy()
    for owner, members in pieces.items():
        result[owner] = members[0] if len(members) == 1 else _join(members)
    return result


def _join(pieces: list[shapely.Geometry]) -> shapely.Geometry:
    """One shape of polygons that a meridian cut, or of points."""
    if shapely.get_dimensions(pieces).min() == 0:
        return shapely.multipoints(pieces)
    return shapely.union_all(shapely.make_valid(pieces))
