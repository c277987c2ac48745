"""Footprints of scenes on Earth: distances, overlaps and neighbours.

Candidate pairs are found by their centres in geocentric coordinates, in metres, which have no seam
at 180 degrees and no poles. Each pair is measured in an azimuthal equidistant projection around
the first of the two; the distance of the nearest points is the geodesic on WGS 84.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import Geod, Proj
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from geotune.data.raster.crs import WGS84, transformer
from geotune.data.raster.source import apply_affine
from geotune.data.raster.windows import Window
from geotune.data.scenes.scene import Scene
from geotune.errors import GeotuneError

SIDE_POINTS = 8
"""Number of points per edge that are projected."""

GEOD = Geod(ellps="WGS84")

ADJACENT = 1.1
"""Scenes adjoin if their centres are nearer than this times the sum of their radii: squares whose
sides face each other at half their side or less, or whose corners nearly touch."""


@dataclass(frozen=True)
class Footprint:
    """The outline of a scene on Earth.

    Attributes:
        scene: its name.
        path: its first file.
        outline: longitude and latitude of points along its edge, `(n, 2)`.
        centre: their mean in geocentric coordinates, `(3,)` in metres.
        radius_m: distance from the centre to the furthest point.
        gsd_m: side of a pixel.
    """

    scene: str
    path: Path
    outline: NDArray[np.float64]
    centre: NDArray[np.float64]
    radius_m: float
    gsd_m: float


class Overlap(NamedTuple):
    """Two scenes that overlap."""

    one: Footprint
    other: Footprint
    area_m2: float


@dataclass(frozen=True)
class Distance:
    """The distance between two groups of scenes.

    Attributes:
        distance_m: between the nearest two; 0 if they touch.
        one, other: the nearest two.
        overlaps: pairs that overlap by more than the width of a pixel, largest first.
    """

    distance_m: float
    one: Footprint
    other: Footprint
    overlaps: tuple[Overlap, ...]


def footprint(scene: Scene) -> Footprint | None:
    """The footprint of a scene; None without georeference."""
    raster = scene.raster
    gsd_m = raster.gsd_m
    if not raster.georeferenced or raster.crs is None or gsd_m is None:
        return None
    row, col, height, width = raster.to_grid(Window(0, 0, *raster.shape))
    along = np.linspace(0, 1, SIDE_POINTS, endpoint=False)
    across = np.concatenate([along, along * 0 + 1, 1 - along, along * 0])
    down = np.concatenate([along * 0, along, along * 0 + 1, 1 - along])
    xs, ys = apply_affine(raster.transform, col + across * width, row + down * height)
    try:
        longitudes, latitudes = transformer(raster.crs, WGS84).transform(xs, ys)
    except GeotuneError:  # such as an engineering CRS
        return None
    if not (np.isfinite(longitudes).all() and (np.abs(latitudes) <= 90).all()):
        return None  # also of files whose transform has the wrong unit
    points = _geocentric(longitudes, latitudes)
    centre = points.mean(axis=0)
    radius = float(np.linalg.norm(points - centre, axis=1).max())
    outline = np.stack([longitudes, latitudes], axis=1)
    return Footprint(scene.name, raster.path, outline, centre, radius, gsd_m)


def group_distance(ones: Sequence[Footprint], others: Sequence[Footprint]) -> Distance | None:
    """The distance between two groups of scenes; None if one of them is empty."""
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
            gsd_m = min(one.gsd_m, close[i].gsd_m)
            if not shapely.buffer(shared, -gsd_m / 2).is_empty:
                overlaps.append(Overlap(one, close[i], float(shared.area)))
        i = int(np.argmin(distances))
        distance = plane.geodesic(shapely.shortest_line(shape, shapes[i]))
        if nearest is None or distance < nearest[0]:
            nearest = distance, one, close[i]
    assert nearest is not None  # the two nearest centres are candidates
    return Distance(*nearest, tuple(sorted(overlaps, key=lambda overlap: -overlap.area_m2)))


def within_distance(
    ones: Sequence[Footprint], others: Sequence[Footprint], metres: float
) -> set[str]:
    """The names of `ones` that are nearer than `metres` to any of `others`."""
    names: set[str] = set()
    if not ones or not others:
        return names
    for one, close in _candidates(ones, others, within=metres):
        plane = _Plane(one)
        shapes = np.array([plane.shape(other) for other in close])
        if shapely.distance(plane.shape(one), shapes).min() < metres:
            names.add(one.scene)
    return names


def areas(scenes: Sequence[Scene], around: NDArray[np.float64] | None = None) -> list[int]:
    """The number of each scene's area; `around` are the scenes' `circles`, if they are known.

    Scenes of one group, of one file, or that adjoin or overlap on Earth share an area: they are
    alike as windows of a scene are. Without georeference, neighbours are known by their group only.
    """
    groups, files = [s.group for s in scenes], [s.raster.path for s in scenes]
    return connected(circles(scenes) if around is None else around, groups, files)


def circles(scenes: Sequence[Scene]) -> NDArray[np.float64]:
    """Centre in geocentric coordinates and radius of each scene, in metres, `(n, 4)`.

    NaN without georeference.
    """
    found = np.full((len(scenes), 4), np.nan)
    for i, scene in enumerate(scenes):
        if (outline := footprint(scene)) is not None:
            found[i] = [*outline.centre, outline.radius_m]
    return found


def connected(around: NDArray[np.float64], *alike: Sequence[Hashable]) -> list[int]:
    """Number the connected components of scenes that adjoin, or have an equal key.

    Args:
        around: their `circles`, `(n, 4)`.
        alike: for each kind of key, the key of each scene.
    """
    pairs: list[tuple[int, int]] = []
    for keys in alike:
        first: dict[Hashable, int] = {}
        pairs += [(i, first.setdefault(key, i)) for i, key in enumerate(keys)]
    known = np.flatnonzero(~np.isnan(around[:, 3]))
    if len(known):
        centres, radii = around[known, :3], around[known, 3]
        near = cKDTree(centres).query_pairs(2 * ADJACENT * radii.max(), output_type="ndarray")
        distance = np.linalg.norm(centres[near[:, 0]] - centres[near[:, 1]], axis=1)
        pairs += known[near[distance < ADJACENT * radii[near].sum(axis=1)]].tolist()
    rows, columns = np.array(pairs).T
    graph = coo_matrix((np.ones(len(pairs)), (rows, columns)), shape=(len(around), len(around)))
    labels: list[int] = connected_components(graph, directed=False)[1].tolist()
    return labels


def _candidates(
    ones: Sequence[Footprint], others: Sequence[Footprint], within: float | None = None
) -> Iterator[tuple[Footprint, list[Footprint]]]:
    """Yield each of `ones` with the `others` that may be nearest, or lie `within` metres."""
    tree = cKDTree([other.centre for other in others])
    centres = np.array([one.centre for one in ones])
    if within is None:
        within = float(tree.query(centres)[0].min())  # the nearest two are not further apart
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
    """An azimuthal equidistant projection around a scene."""

    def __init__(self, origin: Footprint) -> None:
        longitude, latitude = origin.outline[0]
        self._proj = Proj(proj="aeqd", lon_0=longitude, lat_0=latitude, ellps="WGS84")

    def shape(self, footprint: Footprint) -> shapely.Polygon:
        """The outline in metres."""
        points = np.stack(self._proj(*footprint.outline.T), axis=1)
        return shapely.make_valid(shapely.Polygon(points))

    def geodesic(self, line: shapely.LineString) -> float:
        """The geodesic distance between the ends of a line, in metres."""
        start, end = (self._proj(x, y, inverse=True) for x, y in shapely.get_coordinates(line))
        return float(GEOD.inv(*start, *end)[2])


def _geocentric(
    longitudes: NDArray[np.float64], latitudes: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Geocentric coordinates `(n, 3)` in metres of points on WGS 84."""
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
