"""Polygons and points in GeoJSON, GeoPackage, Shapefile and their like, in any CRS."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import shapely

from geotune.data.annotations.annotation_options import AnnotationOptions
from geotune.data.annotations.base import Annotation, AnnotationFormat, ParsedAnnotations
from geotune.data.annotations.outlines import SELF_INTERSECTING, box_corners
from geotune.data.labels.vector_io import (
    VECTOR_SUFFIXES,
    Shapes,
    attribute_columns,
    check_crs,
    class_column,
    may_intersect,
    read_frame,
    to_pixels,
)
from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError

DIFFICULT_FIELD = "difficult"
POINT, MULTIPOINT, POLYGON, MULTIPOLYGON = 0, 4, 3, 6


def read_vector(path: Path, raster: RasterSource, options: AnnotationOptions) -> ParsedAnnotations:
    """Objects of one scene: a polygon each, of one part or more, or points as boxes.

    A field called difficult says which are. Raises `GeotuneError` for lines, for features without
    a geometry, and where only one of scene and labels has a CRS.
    """
    frame = read_frame(path)
    shapes: Shapes = np.asarray(frame.geometry.array, dtype=object)
    if not len(shapes):
        return ParsedAnnotations([])
    _check(path, shapes)
    check_crs(path, frame.crs, raster)
    close = may_intersect(shapes, frame.crs, raster)
    here = np.flatnonzero(close)
    shapes = shapes[here]
    areas = np.isin(shapely.get_type_id(shapes), (POLYGON, MULTIPOLYGON))
    valid = shapely.is_valid(shapes)
    moved = to_pixels(path, frame.crs, shapes, raster)
    column = class_column(path, frame, options.class_field)
    names = [None] * len(here) if column is None else frame[column].iloc[here].tolist()
    difficult = _difficult(path, frame)[here]
    half = 0.0 if areas.all() else options.point_pixels(raster) / 2
    annotations = []
    for i, shape in enumerate(moved):
        points = shapely.get_coordinates(shape)
        if not len(points):  # the scene's CRS cannot express it: it is far from the scene
            close[here[i]] = False
            continue
        if not areas[i]:
            [[x, y]] = points
            points = box_corners(x - half, y - half, x + half, y + half)
        annotations.append(
            Annotation(
                points,
                f"feature {here[i] + 1}",
                names[i],
                bool(difficult[i]),
                "" if valid[i] else SELF_INTERSECTING,
            )
        )
    return ParsedAnnotations(annotations, distant_features=np.flatnonzero(~close) + 1)


def _check(path: Path, shapes: Shapes) -> None:
    """Raise `GeotuneError` for what is neither polygon nor point."""
    kinds = shapely.get_type_id(shapes)
    fits = np.isin(kinds, (POINT, POLYGON, MULTIPOLYGON)) & ~shapely.is_empty(shapes)
    fits |= (kinds == MULTIPOINT) & (shapely.get_num_geometries(shapes) == 1)
    if not fits.all():
        first = int(np.argmin(fits))
        found = "no geometry" if kinds[first] < 0 else f"a {shapes[first].geom_type}"
        if kinds[first] >= 0 and shapes[first].is_empty:
            found = f"an empty {shapes[first].geom_type}"
        raise GeotuneError(
            f"{path}: feature {first + 1} has {found}, one of {int((~fits).sum())} such; expected "
            "a polygon or a point for each object"
        )


def _difficult(path: Path, frame: geopandas.GeoDataFrame) -> np.ndarray:
    """What a field called difficult says; without one nothing is."""
    column = next(
        (name for name in attribute_columns(frame) if name.lower() == DIFFICULT_FIELD), None
    )
    if column is None:
        return np.zeros(len(frame), dtype=np.bool_)
    values = frame[column]
    numeric = values.fillna(0)
    try:
        return np.asarray(numeric.astype(float) != 0)
    except (TypeError, ValueError) as error:
        raise GeotuneError(
            f"{path}: its field {column!r} holds more than numbers ({error}); expected 0 or 1"
        ) from error


VECTOR = AnnotationFormat(
    read_vector, lambda path: path.suffix.lower() in (*VECTOR_SUFFIXES, ".json")
)
