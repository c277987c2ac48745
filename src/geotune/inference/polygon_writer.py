"""Write polygons to a GeoPackage in batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from rasterio.crs import CRS
from rasterio.transform import Affine
from shapely import Polygon

from geotune.data.raster.pixel_area import PixelArea
from geotune.inference.geopackage import write_features

LAYER = "polygons"
_BATCH = 5000


def write_polygons(
    path: Path,
    polygons: Iterable[tuple[int, Polygon]],
    classes: Sequence[str],
    *,
    shape: tuple[int, int],
    crs: CRS | None,
    transform: Affine,
) -> int:
    """Write (class index, polygon in pixels) to the layer `polygons` of a GeoPackage.

    Fields: `class` (name), `pixels`, `area_m2` (null without a usable CRS). Returns the number of
    polygons. Raises `GeotuneError` if the file cannot be written.
    """
    area = PixelArea(crs, transform, shape)
    _append(path, [], classes, area, crs, first=True)
    rest, count = iter(polygons), 0
    while batch := list(islice(rest, _BATCH)):
        _append(path, batch, classes, area, crs, first=False)
        count += len(batch)
    return count


def _append(
    path: Path,
    batch: Sequence[tuple[int, Polygon]],
    classes: Sequence[str],
    area: PixelArea,
    crs: CRS | None,
    *,
    first: bool,
) -> None:
    geometry: Any = np.array([polygon for _, polygon in batch], dtype=object)
    pixels = shapely.area(geometry).astype(np.float64)
    x, y = shapely.get_coordinates(shapely.centroid(geometry)).reshape(-1, 2).T
    names = np.array([classes[value] for value, _ in batch], dtype=object)
    t = area.transform
    matrix = np.array([[t.a, t.d], [t.b, t.e]])
    placed = shapely.transform(geometry, lambda points: points @ matrix + (t.c, t.f))
    write_features(
        path,
        LAYER,
        placed,
        {
            "class": names,
            "pixels": np.rint(pixels).astype(np.int64),
            "area_m2": pixels * area.at(x, y),
        },
        geometry_type="Polygon",
        crs=crs,
        append=not first,
    )
