"""Where scenes lie on Earth, how far apart they are, and where they overlap.

Candidates are found by their centres in space, in metres from the Earth's centre, which has no seam
at 180 degrees and no poles. Each pair is then measured in an azimuthal equidistant projection about
the first of the two, and the distance of the nearest points is the geodesic's on WGS 84.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Geod, Proj
from scipy.spatial import cKDTree

from geotune.data.raster.crs import WGS84, transformer
from geotune.data.raster.source import apply_affine
from geotune.data.raster.windows import Window
from geotune.data.scenes.scene import Scene
from geotune.errors import GeotuneError

SIDE_POINTS = 8
"""Into so many pieces an edge is cut before it is projected."""

GEOD = Geod(ellps="WGS84")


@dataclass(frozen=True)
class Footprint:
    """The outline of a scene on Earth.

    Attributes:
        scene: its name.
        path: its file.
        outline: longitude and latitude of points along its edge, `(n, 2)`.
        centre: of these points in space, `(3,)` in metres.
        radius_m: distance from there to the furthest point of the edge.
        pixel_m: the side of a pixel.
    """

    scene: str
    path: Path
    outline: NDArray[np.float64]
    centre: NDArray[np.float64]
    radius_m: float
    pixel_m: float


class Overlap(NamedTuple):
    """Two scenes of which one covers some of the other."""

    one: Footprint
    other: Footprint
    area_m2: float


@dataclass(frozen=True)
class Distance:
    """How far apart two groups of scenes are.

    Attributes:
        distance_m: between the nearest two, 0 where they touch.
        one, other: the nearest two.
        overlaps: pairs that overlap by more than a pixel's width, largest first.
    """

    distance_m: float
    one: Footprint
    other: Footprint
    overlaps: tuple[Overlap, ...]


def footprint(scene: Scene) -> Footprint | None:
    """The outline of a scene; None where its files do not say where it lies."""
    raster = scene.raster
    pixel = raster.gsd_m
    if not raster.georeferenced or raster.crs is None or pixel is None:
        return None
    row, col, height, width = raster.to_grid(Window(0, 0, *raster.shape))
    along = np.linspace(0, 1, SIDE_POINTS, endpoint=False)
    across = np.concatenate([along, along * 0 + 1, 1 - along, along * 0])
    down = np.concatenate([along * 0, along, along * 0 + 1, 1 - along])
    xs, ys = apply_affine(raster.transform, col + across * width, row + down * height)
    try:
        longitudes, latitudes = transformer(raster.crs, WGS84).transform(xs, ys)
    except GeotuneError:  # such as a CRS of a drawing
        return None
    if not (np.isfinite(longitudes).all() and np.isfinite(latitudes).all()):
        return None
    places = _in_space(longitudes, latitudes)
    centre = places.mean(axis=0)
    radius = float(np.linalg.norm(places - centre, axis=1).max())
    outline = np.stack([longitudes, latitudes], axis=1)
    return Footprint(scene.name, raster.path, outline, centre, radius, pixel)


def gap(ones: Sequence[Footprint], others: Sequence[Footprint]) -> Distance | None:
    """How far apart two groups of scenes are; None where one of them is empty."""
    if not ones or not others:
        return None
    nearest: tuple[float, Footprint, Footprint] | None = None
    overlaps: list[Overlap] = []
    for one, close in _candidates(ones, others):
        plane = _Plane(one)
        shape, shapes = plane.shape(one), np.array([plane.shape(other) for other in close])
        distances = shapely.distance(shape, shapes)
        for i in np.flatnonzero(distances == 0).tolist():
            shared = shapely.intersection(shape, shapes[i])
            width = min(one.pixel_m, close[i].pixel_m)
            if not shapely.buffer(shared, -width / 2).is_empty:
                overlaps.append(Overlap(one, close[i], float(shared.area)))
        i = int(np.argmin(distances))
        distance = plane.geodesic(shapely.shortest_line(shape, shapes[i]))
        if nearest is None or distance < nearest[0]:
            nearest = distance, one, close[i]
    assert nearest is not None  # the two nearest centres are candidates
    return Distance(*nearest, tuple(sorted(overlaps, key=lambda found: -found.area_m2)))


def within_distance(
    ones: Sequence[Footprint], others: Sequence[Footprint], metres: float
) -> set[str]:
    """The names of those of `ones` that are nearer than `metres` to one of `others`."""
    found: set[str] = set()
    if not ones or not others:
        return found
    for one, close in _candidates(ones, others, within=metres):
        plane = _Plane(one)
        shapes = np.array([plane.shape(other) for other in close])
        if shapely.distance(plane.shape(one), shapes).min() < metres:
            found.add(one.scene)
    return found


def _candidates(
    ones: Sequence[Footprint], others: Sequence[Footprint], within: float | None = None
) -> Iterator[tuple[Footprint, list[Footprint]]]:
    """Of each of `ones` those `others` that may be the nearest of all, or lie `within` metres."""
    tree = cKDTree([other.centre for other in others])
    centres = np.array([one.centre for one in ones])
    if within is None:
        within = float(tree.query(centres)[0].min())  # no two can be further than their centres
    reach = max(other.radius_m for other in others)
    for one in ones:
        near = tree.query_ball_point(one.centre, within + one.radius_m + reach)
        close = [
            others[i]
            for i in sorted(near)
            if np.linalg.norm(others[i].centre - one.centre)
            <= within + one.radius_m + others[i].radius_m
        ]
        if close:
            yield one, close


class _Plane:
    """An azimuthal equidistant projection about a scene."""

    def __init__(self, about: Footprint) -> None:
        longitude, latitude = about.outline[0]
        self._proj = Proj(proj="aeqd", lon_0=longitude, lat_0=latitude, ellps="WGS84")

    def shape(self, found: Footprint) -> shapely.Polygon:
        """An outline in metres."""
        return shapely.make_valid(shapely.Polygon(np.stack(self._proj(*found.outline.T), axis=1)))

    def geodesic(self, line: shapely.LineString) -> float:
        """The length on Earth between a line's ends in metres."""
        (start, end) = shapely.get_coordinates(line)
        here, there = (self._proj(x, y, inverse=True) for x, y in (start, end))
        return float(GEOD.inv(*here, *there)[2])


def _in_space(
    longitudes: NDArray[np.float64], latitudes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Points on WGS 84 in metres from the Earth's centre, `(n, 3)`."""
    lam, phi = np.radians(longitudes), np.radians(latitudes)
    across = GEOD.a / np.sqrt(1 - GEOD.es * np.sin(phi) ** 2)
    return np.stack(
        [
            across * np.cos(phi) * np.cos(lam),
            across * np.cos(phi) * np.sin(lam),
            across * (1 - GEOD.es) * np.sin(phi),
        ],
        axis=1,
    )
