"""Labels in a vector file: polygons, each of a class."""

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
from geotune.data.labels.vector_io import (
    Shapes,
    attribute_columns,
    check_crs,
    class_column,
    clip_to_scene,
    read_frame,
    to_pixels,
)
from geotune.data.raster.io import warnings_lock
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError
from geotune.types import IGNORE
from geotune.utils.text import join_some

MANY_CORNERS = 500
POLYGONS = (3, 6)  # shapely's numbers of Polygon and MultiPolygon


@dataclass(frozen=True)
class VectorLabels:
    """Polygons in pixels of the scene; a mask is drawn for each window that is read.

    A pixel belongs to the polygon that holds its centre, to the later in the file where several
    do.

    Attributes:
        path: the file.
        classes: names, in the order of the indices.
        shape: the scene's (H, W).
        polygons: in pixel coordinates (column, row) of the scene.
        indices: class index of each polygon.
        outside: index of pixels outside all polygons.
        overlaps: whether a polygon lies in the scene; None for a file without any.
        notes: how the file was understood.
    """

    path: Path
    classes: tuple[str, ...]
    shape: tuple[int, int]
    polygons: Shapes
    indices: NDArray[np.int64]
    outside: int
    overlaps: bool | None
    notes: tuple[str, ...]
    label_unit: ClassVar[str] = "pixel"
    image_level: ClassVar[bool] = False
    tree: STRtree = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", STRtree(self.polygons))

    def read(self, window: Window) -> PixelClasses:
        """The classes of the pixels in `window`."""
        mask = np.full((window.height, window.width), IGNORE, dtype=np.uint8)
        inner = window.clip(self.shape)
        if inner is None:
            return PixelClasses(mask)
        drawn = np.full((inner.height, inner.width), self.outside, dtype=np.uint8)
        left, top = inner.col, inner.row
        frame = (left, top, left + inner.width, top + inner.height)
        hits = np.sort(self.tree.query(shapely.box(*frame)))
        if hits.size:
            polygons = self.polygons[hits]
            many = shapely.get_num_coordinates(polygons) > MANY_CORNERS
            if many.any():  # a country's outline is not handed over corner by corner
                polygons[many] = shapely.clip_by_rect(
                    polygons[many], frame[0] - 1, frame[1] - 1, frame[2] + 1, frame[3] + 1
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
        """Nothing is left to check: every polygon's class was looked at when it was opened."""


def open_vector_labels(
    path: Path,
    raster: RasterSource,
    values: ClassMapping,
    *,
    class_field: str | None = None,
    outside: int = IGNORE,
) -> VectorLabels:
    """Vector labels of the scene `raster`, in any CRS.

    The class of a polygon is in `class_field`; without it in a field called class, label or
    classname; a file that has none of these, or `class_field=""`, holds polygons of the second
    of two classes. Raises `GeotuneError` for a file that is unreadable or holds anything but
    polygons, for a class that is not in the list, and where only one of scene and labels has a
    CRS.
    """
    frame = read_frame(path)
    notes: list[str] = []
    shapes: Shapes = np.asarray(frame.geometry.array, dtype=object)
    there = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    if not there.all():
        notes.append(f"{path}: {int((~there).sum())} features have no geometry; left out")
    indices = _classes_of(path, frame, class_field, values)[there]
    shapes = shapes[there]
    overlaps: bool | None = None
    if len(shapes):
        _only_polygons(path, shapes)
        check_crs(path, frame.crs, raster)
        here = clip_to_scene(shapes, frame.crs, raster)
        shapes, indices = _polygons(shapes[here]), indices[here]
        shapes = to_pixels(path, frame.crs, shapes, raster)
        scene = shapely.box(0, 0, raster.shape[1], raster.shape[0])
        inside = shapely.intersects(shapes, scene)
        overlaps = bool(inside.any())
        shapes, indices = shapes[inside], indices[inside]
    return VectorLabels(
        path=path,
        classes=values.classes,
        shape=raster.shape,
        polygons=shapes,
        indices=indices,
        outside=outside,
        overlaps=overlaps,
        notes=tuple(notes),
    )


def _classes_of(
    path: Path, frame: geopandas.GeoDataFrame, class_field: str | None, values: ClassMapping
) -> NDArray[np.int64]:
    """Class index of every feature."""
    name = class_column(path, frame, class_field)
    if name is None:
        if len(values.classes) > 2 and len(frame):
            held = ", ".join(attribute_columns(frame)) or "none"
            raise GeotuneError(
                f"{path}: does not say which of {', '.join(values.classes)} a polygon is; name "
                f"the field that does with data.class_field (it has {held})"
            )
        return np.ones(len(frame), dtype=np.int64)
    attribute = frame[name].tolist()
    indices = np.array([values.index_of(value) for value in attribute], dtype=np.int64)
    unknown = Counter(str(v) for v, i in zip(attribute, indices, strict=True) if i == UNKNOWN)
    if unknown:
        listed = join_some([f"{value!r} ({n} features)" for value, n in unknown.most_common()])
        raise GeotuneError(
            f"{path}: holds class value {listed} in its field {name!r}; expected "
            f"{values.describe()}; name another field with data.class_field, or say what the "
            "values mean with data.class_values"
        )
    return indices


def _only_polygons(path: Path, shapes: Shapes) -> None:
    flat = shapely.get_dimensions(shapes) < 2
    if flat.any():
        raise GeotuneError(
            f"{path}: holds {int(flat.sum())} features such as {shapes[flat][0].geom_type}; "
            "expected polygons"
        )


def _polygons(shapes: Shapes) -> Shapes:
    """The shapes made valid, without the lines and points that this may leave."""
    valid: Shapes = shapely.make_valid(shapes)
    for i in np.flatnonzero(~np.isin(shapely.get_type_id(valid), POLYGONS)):
        parts = shapely.get_parts(valid[i])
        valid[i] = shapely.unary_union(parts[np.isin(shapely.get_type_id(parts), POLYGONS)])
    return valid
