"""Polygons and points in GeoJSON, GeoPackage, Shapefile and similar files, in any CRS."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray

from geotune.data.annotations.base import (
    Annotation,
    AnnotationFormat,
    AnnotationOptions,
    ParsedAnnotations,
)
from geotune.data.annotations.parsing import SELF_INTERSECTING, box_corners
from geotune.data.labels.unread_attributes import unread_attributes
from geotune.data.labels.vector_io import (
    VECTOR_SUFFIXES,
    Shapes,
    attribute_columns,
    check_crs,
    class_column,
    class_values,
    may_intersect,
    read_frame,
    to_pixels,
)
from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError

DIFFICULT_FIELD = "difficult"
POINT, MULTIPOINT, POLYGON, MULTIPOLYGON = 0, 4, 3, 6


def read_vector(path: Path, raster: RasterSource, options: AnnotationOptions) -> ParsedAnnotations:
    """Objects of one scene: polygons and multipolygons, or points as boxes.

    A field named difficult marks difficult objects. Features with neither geometry nor class are
    skipped. Raises `GeotuneError` for other and missing
    geometries, and if only one of scene and labels has a CRS.
    """
    frame = read_frame(path, raster)
    column = class_column(path, frame, options.class_field)
    shapes: Shapes = np.asarray(frame.geometry.array, dtype=object)
    is_object = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    if column is not None:
        is_object |= np.asarray(frame[column].notna())
    if not is_object.any():
        return ParsedAnnotations([])
    _check_types(path, shapes, is_object)
    check_crs(path, frame.crs, raster)
    near = may_intersect(shapes, frame.crs, raster) & is_object
    indices = np.flatnonzero(near)
    shapes = shapes[indices]
    is_area = np.isin(shapely.get_type_id(shapes), (POLYGON, MULTIPOLYGON))
    valid = shapely.is_valid(shapes)
    in_pixels = to_pixels(path, frame.crs, shapes, raster)
    if column is not None and not frame[column].notna().any():
        column = None
    names = [None] * len(indices)
    if column is not None:
        names = class_values(frame.iloc[indices], column)
    difficult = _difficult(path, frame)[indices]
    half = 0.0 if is_area.all() else options.point_pixels(raster) / 2
    annotations = []
    for i, shape in enumerate(in_pixels):
        points = shapely.get_coordinates(shape)
        if not len(points):  # the scene's CRS cannot express it: it is far from the scene
            near[indices[i]] = False
            continue
        if not is_area[i]:
            [[x, y]] = points
            points = box_corners(x - half, y - half, x + half, y + half)
        annotations.append(
            Annotation(
                points,
                f"feature {indices[i] + 1}",
                names[i],
                bool(difficult[i]),
                "" if valid[i] else SELF_INTERSECTING,
            )
        )
    no_class = options.class_field is None and column is None
    return ParsedAnnotations(
        annotations,
        distant_features=np.flatnonzero(~near & is_object) + 1,
        unread=unread_attributes(path, read=[DIFFICULT_FIELD]) if no_class else {},
    )


def _check_types(path: Path, shapes: Shapes, is_object: NDArray[np.bool_]) -> None:
    """Raise `GeotuneError` for any object that is not a polygon or point."""
    types = shapely.get_type_id(shapes)
    supported = np.isin(types, (POINT, POLYGON, MULTIPOLYGON)) & ~shapely.is_empty(shapes)
    supported |= (types == MULTIPOINT) & (shapely.get_num_geometries(shapes) == 1)
    supported |= ~is_object
    if not supported.all():
        first = int(np.argmin(supported))
        if types[first] < 0:
            description = "no geometry"
        else:
            empty = "empty " if shapes[first].is_empty else ""
            description = f"the geometry type {empty}{shapes[first].geom_type}"
        raise GeotuneError(
            f"{path}: feature {first + 1} has {description} ({int((~supported).sum())} such); "
            "expected a polygon or a point for each object",
            code="geometry-type",
            file=path,
        )


def _difficult(path: Path, frame: geopandas.GeoDataFrame) -> NDArray[np.bool_]:
    """Whether each feature is difficult; none if there is no such field."""
    column = next(
        (name for name in attribute_columns(frame) if name.lower() == DIFFICULT_FIELD), None
    )
    if column is None:
        return np.zeros(len(frame), dtype=np.bool_)
    try:
        return np.asarray(frame[column].fillna(0).astype(float) != 0)
    except (TypeError, ValueError) as error:
        raise GeotuneError(
            f"{path}: its field {column!r} has values that are not numbers ({error}); expected 0 "
            "or 1",
            code="label-value",
            file=path,
        ) from error


VECTOR = AnnotationFormat(
    read_vector,
    lambda path: path.suffix.lower() in (*VECTOR_SUFFIXES, ".json"),
    in_pixels=False,
)
