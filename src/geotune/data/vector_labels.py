"""Labels in a vector file: polygons, each of a class."""

from __future__ import annotations

import functools
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import geopandas
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.features import rasterize
from rasterio.transform import Affine, array_bounds
from rasterio.warp import transform_bounds
from shapely import STRtree

from geotune.data.handles import quiet
from geotune.data.raster import RasterSource, apply
from geotune.data.targets import PixelClasses
from geotune.data.values import UNKNOWN, ClassValues
from geotune.data.windows import Window
from geotune.types import IGNORE, GeotuneError

CLASS_FIELDS = ("class", "label", "classname")
MANY_CORNERS = 500
POLYGONS = (3, 6)  # shapely's numbers of Polygon and MultiPolygon
Shapes = NDArray[np.object_]


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
    unit: ClassVar[str] = "pixel"
    whole: ClassVar[bool] = False
    tree: STRtree = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", STRtree(self.polygons))

    def read(self, window: Window) -> PixelClasses:
        """The classes of the pixels in `window`."""
        mask = np.full((window.height, window.width), IGNORE, dtype=np.int64)
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
                with quiet:
                    rasterize(shapes, out=drawn, transform=Affine.translation(left, top))
        mask[inner.within(window)] = drawn
        return PixelClasses(mask)

    def check(self, windows: Iterable[Window]) -> None:
        """Nothing is left to check: every polygon's class was looked at when it was opened."""


def open_vector_labels(
    path: Path,
    raster: RasterSource,
    values: ClassValues,
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
    if not path.exists():
        raise GeotuneError(f"{path}: there is no such label file; mend data.labels")
    frame = read_frame(path, path.stat().st_mtime_ns)
    notes: list[str] = []
    shapes: Shapes = np.asarray(frame.geometry.array, dtype=object)
    there = ~(shapely.is_missing(shapes) | shapely.is_empty(shapes))
    if not there.all():
        notes.append(f"{path}: {int((~there).sum())} features have no geometry; left out")
    indices = _classes_of(path, frame, class_field, values)[there]
    shapes = shapes[there]
    overlaps: bool | None = None
    if len(shapes):
        _check(path, frame.crs, shapes, raster)
        near = _near(shapes, frame.crs, raster)
        shapes, indices = _to_pixels(path, frame.crs, shapes[near], raster), indices[near]
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


@functools.lru_cache(maxsize=1)  # many scenes may share one file
def read_frame(path: Path, changed: int) -> geopandas.GeoDataFrame:
    """The features of a file that was changed last at `changed`, in nanoseconds.

    Raises `GeotuneError` where it cannot be read or holds no geometry.
    """
    try:
        if path.suffix.lower() == ".parquet":
            return geopandas.read_parquet(path)
        layers = [name for name, kind in pyogrio.list_layers(path) if kind is not None]
        if len(layers) > 1:
            raise GeotuneError(
                f"{path}: has the layers {', '.join(layers)}; expected one: put the labels into a "
                "file of their own"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # columns of kinds that are not used here
            frame = pyogrio.read_dataframe(path)
    except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, ValueError) as error:
        raise GeotuneError(
            f"{path}: cannot be read as vector labels ({error}); write it anew"
        ) from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise GeotuneError(f"{path}: has no geometry; expected polygons or points")
    return frame


def _classes_of(
    path: Path, frame: geopandas.GeoDataFrame, class_field: str | None, values: ClassValues
) -> NDArray[np.int64]:
    """Class index of every feature."""
    columns = [str(name) for name in frame.columns if name != frame.geometry.name]
    if class_field:
        if class_field not in columns:
            raise GeotuneError(
                f"{path}: has no field {class_field!r} (data.class_field); "
                f"it has {', '.join(columns) or 'none'}"
            )
        name: str | None = class_field
    elif class_field is None:
        by_lower = {column.lower(): column for column in columns}
        name = next((by_lower[known] for known in CLASS_FIELDS if known in by_lower), None)
    else:
        name = None
    if name is None:
        if len(values.classes) > 2 and len(frame):
            raise GeotuneError(
                f"{path}: does not say which of {', '.join(values.classes)} a polygon is; name "
                f"the field that does with data.class_field (it has {', '.join(columns) or 'none'})"
            )
        return np.ones(len(frame), dtype=np.int64)
    attribute = frame[name].tolist()
    indices = np.array([values.index_of(value) for value in attribute], dtype=np.int64)
    unknown = Counter(str(v) for v, i in zip(attribute, indices, strict=True) if i == UNKNOWN)
    if unknown:
        listed = ", ".join(f"{value!r} ({n} features)" for value, n in unknown.most_common(5))
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise GeotuneError(
            f"{path}: holds class value {listed}{more} in its field {name!r}; expected "
            f"{values.describe()}; name another field with data.class_field, or say what the "
            "values mean with data.class_values"
        )
    return indices


def _check(path: Path, crs: Any, shapes: Shapes, raster: RasterSource) -> None:
    """Raise `GeotuneError` for points and lines, and where only one of the two has a CRS."""
    flat = shapely.get_dimensions(shapes) < 2
    if flat.any():
        raise GeotuneError(
            f"{path}: holds {int(flat.sum())} features such as {shapes[flat][0].geom_type}; "
            "expected polygons"
        )
    if (crs is None) != (raster.crs is None):
        lacks, has, found = (
            (raster.path, f"its labels {path}", crs)
            if raster.crs is None
            else (path, f"its scene {raster.path}", raster.crs)
        )
        raise GeotuneError(
            f"{lacks}: has no CRS, but {has} has one ({found}); write into the first which CRS "
            "its coordinates are in"
        )


def _near(shapes: Shapes, crs: Any, raster: RasterSource) -> NDArray[np.bool_]:
    """Which shapes may lie in the scene, so that a country's labels need not all be reprojected."""
    if crs is None or raster.crs is None:
        return np.ones(len(shapes), dtype=np.bool_)
    box = array_bounds(*raster.shape, raster.transform)
    try:
        west, south, east, north = transform_bounds(raster.crs, CRS.from_wkt(crs.to_wkt()), *box)
    except RasterioError:
        return np.ones(len(shapes), dtype=np.bool_)
    if not np.isfinite([west, south, east, north]).all() or west > east:  # over the 180th meridian
        return np.ones(len(shapes), dtype=np.bool_)
    wide, high = 0.05 * (east - west), 0.05 * (north - south)
    left, bottom, right, top = shapely.bounds(shapes).T
    found: NDArray[np.bool_] = (
        (left < east + wide)
        & (right > west - wide)
        & (bottom < north + high)
        & (top > south - high)
    )
    return found


def _to_pixels(path: Path, crs: Any, shapes: Shapes, raster: RasterSource) -> Shapes:
    """Valid polygons in pixel coordinates of the scene."""
    if not len(shapes):
        return shapes
    shapes = _polygons(shapes)
    if crs is not None and raster.crs is not None:
        target = raster.crs.to_wkt()
        if crs != target:
            series = geopandas.GeoSeries(shapes, crs=crs)
            # a straight edge is bent by the projection: give long ones corners on the way
            spans = shapely.bounds(shapes)
            longest = float(np.nanmax(spans[:, 2:] - spans[:, :2], initial=0.0))
            if longest > 0:
                series = series.segmentize(longest / 64)
            try:
                shapes = np.asarray(series.to_crs(target).array, dtype=object)
            except ProjError as error:
                raise GeotuneError(
                    f"{path}: cannot be brought from its CRS to that of {raster.path} ({error})"
                ) from error
            # what the scene's CRS cannot express is far from the scene
            shapes[~np.isfinite(shapely.bounds(shapes)).all(axis=1)] = shapely.Polygon()
    back = ~raster.transform

    def pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(apply(back, points[:, 0], points[:, 1]), axis=1)

    moved: Shapes = shapely.transform(shapes, pixels)
    return moved


def _polygons(shapes: Shapes) -> Shapes:
    """The shapes made valid, without the lines and points that this may leave."""
    valid: Shapes = shapely.make_valid(shapes)
    for i in np.flatnonzero(~np.isin(shapely.get_type_id(valid), POLYGONS)):
        parts = shapely.get_parts(valid[i])
        valid[i] = shapely.unary_union(parts[np.isin(shapely.get_type_id(parts), POLYGONS)])
    return valid
