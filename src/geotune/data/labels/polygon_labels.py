"""Labels in a vector file: polygons, each of one class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import geopandas
import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine
from shapely import STRtree

from geotune.data.labels.class_mapping import UNKNOWN, ClassMapping
from geotune.data.labels.targets import PixelClasses
from geotune.data.labels.unread_attributes import Attributes, unread_attributes
from geotune.data.labels.vector_io import (
    Shapes,
    attribute_columns,
    check_crs,
    class_column,
    class_values,
    may_intersect,
    read_frame,
    to_pixels,
)
from geotune.data.raster.io import warnings_lock
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError
from geotune.types import IGNORE
from geotune.utils.text import join_some

MAX_VERTICES = 500
"""Polygons with more vertices are clipped to the window before they are rasterised."""

POLYGON_TYPES = (3, 6)
"""Shapely's type ids of Polygon and MultiPolygon."""


@dataclass(frozen=True)
class PolygonLabels:
    """Polygons in pixels of the scene, rasterised for each window that is read.

    A pixel belongs to the polygon that contains its centre; of several, to the last in the file.

    Attributes:
        path: the file.
        classes: names, in the order of the indices.
        shape: (H, W) of the scene.
        polygons: in pixels (column, row) of the scene.
        indices: class index of each polygon.
        outside: index of pixels outside all polygons.
        overlaps: whether a polygon lies in the scene; None for a file without any.
        notes: how the file was interpreted.
        unread: attributes of the file if none of them is read as the class.
    """

    path: Path
    classes: tuple[str, ...]
    shape: tuple[int, int]
    polygons: Shapes
    indices: NDArray[np.int64]
    outside: int
    overlaps: bool | None
    notes: tuple[str, ...]
    unread: Attributes = field(default_factory=dict)
    label_unit: ClassVar[str] = "pixel"
    image_level: ClassVar[bool] = False
    tree: STRtree = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", STRtree(self.polygons))

    def read(self, window: Window) -> PixelClasses:
        """Rasterise the classes of the pixels in `window`."""
        mask = np.full((window.height, window.width), IGNORE, dtype=np.uint8)
        inner = window.clip(self.shape)
        if inner is None:
            return PixelClasses(mask)
        drawn = np.full((inner.height, inner.width), self.outside, dtype=np.uint8)
        left, top = inner.col, inner.row
        right, bottom = left + inner.width, top + inner.height
        hits = np.sort(self.tree.query(shapely.box(left, top, right, bottom)))
        if hits.size:
            polygons = self.polygons[hits]
            large = shapely.get_num_coordinates(polygons) > MAX_VERTICES
            if large.any():  # such as the outline of a country
                polygons[large] = shapely.clip_by_rect(
                    polygons[large], left - 1, top - 1, right + 1, bottom + 1
                )
            shapes = [
                (polygon, int(index))
                for polygon, index in zip(polygons, self.indices[hits], strict=True)
                if not polygon.is_empty
            ]
            if shapes:
                with warnings_lock:
                    rasterize(shapes, out=drawn, transform=Affine.translation(left, top))
        mask[inner.slices_in(window)] = drawn
        return PixelClasses(mask)

    def check(self, windows: Iterable[Window]) -> None:
        """Nothing to check: classes were checked when the file was opened."""


def open_polygon_labels(
    path: Path,
    raster: RasterSource,
    mapping: ClassMapping,
    *,
    class_field: str | None = None,
    outside: int = IGNORE,
) -> PolygonLabels:
    """Open vector labels, in any CRS, of the scene `raster`.

    The class of a polygon is in `class_field`, by default a field named class, label or classname.
    Without such a field, or with `class_field=""`, all polygons have the second of two classes.
    Raises `GeotuneError` for a file that is unreadable or has other geometries than polygons, for
    an unknown class, and if only one of scene and labels has a CRS.
    """
    frame = read_frame(path, raster)
    notes: list[str] = []
    shapes: Shapes = np.asarray(frame.geometry.array, dtype=object)
    present = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    if not present.all():
        notes.append(f"{path}: ignored {int((~present).sum())} features without geometry")
    frame, shapes = frame[present], shapes[present]  # features without geometry have no class
    column = class_column(path, frame, class_field)
    indices = _class_indices(path, frame, column, mapping)
    overlaps: bool | None = None
    if len(shapes):
        _check_polygons(path, shapes)
        check_crs(path, frame.crs, raster)
        near = may_intersect(shapes, frame.crs, raster)
        shapes, indices = _make_valid(shapes[near]), indices[near]
        shapes = to_pixels(path, frame.crs, shapes, raster)
        inside = shapely.intersects(shapes, shapely.box(0, 0, raster.shape[1], raster.shape[0]))
        overlaps = bool(inside.any())
        shapes, indices = shapes[inside], indices[inside]
    return PolygonLabels(
        path=path,
        classes=mapping.classes,
        shape=raster.shape,
        polygons=shapes,
        indices=indices,
        outside=outside,
        overlaps=overlaps,
        notes=tuple(notes),
        unread=unread_attributes(path) if class_field is None and column is None else {},
    )


def _class_indices(
    path: Path, frame: geopandas.GeoDataFrame, column: str | None, mapping: ClassMapping
) -> NDArray[np.int64]:
    """Class index of every feature, from its column if there is one."""
    if column is None:
        if len(mapping.classes) > 2 and len(frame):
            columns = ", ".join(attribute_columns(frame)) or "none"
            raise GeotuneError(
                f"{path}: does not state the class of polygons ({', '.join(mapping.classes)}); set "
                f"data.class_field to the field with the class (fields: {columns})",
                code="class-field",
                key="data.class_field",
                file=path,
            )
        return np.ones(len(frame), dtype=np.int64)
    values = class_values(frame, column)
    indices = np.array([mapping.index_of(value) for value in values], dtype=np.int64)
    unknown = Counter(str(v) for v, i in zip(values, indices, strict=True) if i == UNKNOWN)
    if unknown:
        listed = join_some(
            [
                f"{value!r} ({n} features)" if value else f"(no value) ({n} features)"
                for value, n in unknown.most_common()
            ]
        )
        raise GeotuneError(
            f"{path}: has the class values {listed} in its field {column!r}; expected "
            f"{mapping.describe()}; set data.class_field to another field, or map the values to "
            "classes with data.class_values",
            code="class-unknown",
            key="data.class_values",
            file=path,
        )
    return indices


def _check_polygons(path: Path, shapes: Shapes) -> None:
    others = shapes[shapely.get_dimensions(shapes) < 2]
    if len(others):
        raise GeotuneError(
            f"{path}: has {len(others)} features such as {others[0].geom_type}; expected polygons",
            code="geometry-type",
            file=path,
        )


def _make_valid(shapes: Shapes) -> Shapes:
    """Valid polygons, without the lines and points that making them valid may leave."""
    valid: Shapes = shapely.make_valid(shapes)
    for i in np.flatnonzero(~np.isin(shapely.get_type_id(valid), POLYGON_TYPES)):
        pieces = shapely.get_parts(valid[i])
        valid[i] = shapely.unary_union(pieces[np.isin(shapely.get_type_id(pieces), POLYGON_TYPES)])
    return valid
