"""Labels and scenes across the 180th meridian, whose coordinates differ by whole turns.

In degrees such a scene has longitudes such as 179.5 to 180.5, its labels -179.5, and GeoJSON cuts
polygons there; in Mercator x lies beyond 20,037,508 m. Shapes are moved by whole turns to where the
scene is, and joined again.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import shapely
from numpy.typing import NDArray

from geotune.data.raster.crs import bounds
from geotune.data.raster.longitude_axis import TURNS, LongitudeAxis
from geotune.data.raster.source import RasterSource

Shapes = NDArray[np.object_]


def unwrap(
    shapes: Shapes,
    axis: LongitudeAxis,
    raster: RasterSource,
    original: Shapes,
    original_axis: LongitudeAxis | None,
) -> Shapes:
    """Undo the jumps by a turn in shapes that were reprojected to the scene's `axis`.

    Vertices follow the longitudes of the `original` shapes; if these have none, those of shapes
    wider than half the world are moved to the side of the scene.
    """
    xs = shapely.get_coordinates(shapes)[:, 0]
    if original_axis is not None:
        degrees = (shapely.get_coordinates(original)[:, 0] - original_axis.centre) * (
            360 / original_axis.width
        ) + (original_axis.longitude - axis.longitude)
        expected = axis.centre + degrees * (axis.width / 360)
        with np.errstate(invalid="ignore"):  # coordinates that the scene's CRS cannot express
            turns = axis.nearest_turn(xs, expected)
    else:
        left, _, right, _ = shapely.bounds(shapes).T
        wide = np.repeat(right - left > axis.width / 2, shapely.get_num_coordinates(shapes))
        west, _, east, _ = bounds(raster.transform, raster.shape)
        turns = np.where(wide, axis.nearest_turn(xs, (west + east) / 2), 0)
    turns = np.where(np.isfinite(turns), turns, 0)
    if not turns.any():
        return shapes
    moved: Shapes = shapely.transform(
        shapes, lambda points: points + np.stack([turns, 0 * turns], axis=1)
    )
    return moved


def beside_scene(shapes: Shapes, axis: LongitudeAxis, raster: RasterSource) -> Shapes:
    """Shapes moved by whole turns to the scene, in whose CRS they are.

    A part that lies in the scene after several turns is repeated.
    """
    west, _, east, _ = bounds(raster.transform, raster.shape)
    left, _, right, _ = shapely.bounds(shapes).T
    in_one_turn = axis.contains(left, right) | np.isnan(left)
    if axis.contains(west, east) and in_one_turn.all():
        return shapes
    parts, owners = shapely.get_parts(shapes, return_index=True)
    left, _, right, _ = shapely.bounds(parts).T
    copies = axis.turns_within(left, right, west, east)
    turns = axis.width * np.array(TURNS)
    nearest = axis.nearest_turn((left + right) / 2, (west + east) / 2)
    copies |= (turns[:, None] == nearest) & ~copies.any(axis=0)
    pieces: dict[int, list[shapely.Geometry]] = defaultdict(list)
    for part, turn in np.argwhere(copies.T):
        shift = (turns[turn], 0)
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
