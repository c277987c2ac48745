"""Vector files of labels: reading them, and bringing their shapes to a scene's pixels."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio.errors
import pyogrio.raw
import shapely
from numpy.typing import NDArray
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import RasterioError
from rasterio.transform import array_bounds

from geotune.data.raster.crs import transformer
from geotune.data.raster.source import RasterSource, apply_affine
from geotune.errors import GeotuneError
from geotune.utils.text import join_some

CLASS_FIELDS = ("class", "label", "classname")
VECTOR_SUFFIXES = (".geojson", ".json", ".gpkg", ".shp", ".fgb", ".parquet", ".kml", ".gml")
Shapes = NDArray[np.object_]


def is_vector(path: Path) -> bool:
    """Whether a file's name says that it holds vector labels."""
    return path.suffix.lower() in VECTOR_SUFFIXES


def read_frame(path: Path) -> geopandas.GeoDataFrame:
    """The one layer of a file. Raises `GeotuneError` where it is missing or cannot be read."""
    if not path.exists():
        raise GeotuneError(f"{path}: there is no such label file; mend data.labels")
    return _read(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)  # many scenes may share one file
def _read(path: Path, changed: int) -> geopandas.GeoDataFrame:
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
            frame = _frame(path)
    except (
        pyogrio.errors.DataSourceError,
        pyogrio.errors.DataLayerError,
        shapely.errors.GEOSException,
        ValueError,
    ) as error:
        raise GeotuneError(
            f"{path}: cannot be read as vector labels ({error}); write it anew"
        ) from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise GeotuneError(f"{path}: has no geometry; expected shapes")
    return frame


def _frame(path: Path) -> geopandas.GeoDataFrame:
    try:
        return pyogrio.read_dataframe(path)
    except shapely.errors.GEOSException as error:  # which does not say of which feature
        shapes = pyogrio.raw.read(path, columns=[])[2]
        made = shapely.from_wkb(shapes, on_invalid="ignore")
        lost = shapely.is_missing(made) & np.array([shape is not None for shape in shapes])
        places = [f"feature {i + 1}" for i in np.flatnonzero(lost).tolist()]
        raise GeotuneError(
            f"{path}: {join_some(places, 3)}: has a shape of which nothing can be made ({error}); mend "
            "it or take it out"
        ) from error


def class_column(path: Path, frame: geopandas.GeoDataFrame, class_field: str | None) -> str | None:
    """The field with the class: `class_field`, else one of `CLASS_FIELDS`; None without any.

    `class_field=""` says that there is none. Raises `GeotuneError` for a field that is not there.
    """
    columns = attribute_columns(frame)
    if class_field:
        if class_field not in columns:
            raise GeotuneError(
                f"{path}: has no field {class_field!r} (data.class_field); "
                f"it has {', '.join(columns) or 'none'}"
            )
        return class_field
    if class_field is not None:
        return None
    by_lower = {column.lower(): column for column in columns}
    return next((by_lower[known] for known in CLASS_FIELDS if known in by_lower), None)


def attribute_columns(frame: geopandas.GeoDataFrame) -> list[str]:
    """Names of what a file says of each shape."""
    return [str(name) for name in frame.columns if name != frame.geometry.name]


def check_crs(path: Path, crs: Any, raster: RasterSource) -> None:
    """Raise `GeotuneError` where only one of a label file and its scene has a CRS."""
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


def clip_to_scene(shapes: Shapes, crs: Any, raster: RasterSource) -> NDArray[np.bool_]:
    """Which shapes may lie in the scene, so that a country's labels need not all be reprojected."""
    if crs is None or raster.crs is None:
        return np.ones(len(shapes), dtype=np.bool_)
    box = array_bounds(*raster.shape, raster.transform)
    try:
        to_labels = transformer(raster.crs, CRS.from_wkt(crs.to_wkt()))
        west, south, east, north = to_labels.transform_bounds(*box)
    except (ProjError, RasterioError, GeotuneError):
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


def to_pixels(path: Path, crs: Any, shapes: Shapes, raster: RasterSource) -> Shapes:
    """The shapes in pixels (column, row) of the scene, empty where its CRS cannot express them.

    Raises `GeotuneError` where there is no way from their CRS to the scene's.
    """
    if not len(shapes):
        return shapes
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
        return np.stack(apply_affine(back, points[:, 0], points[:, 1]), axis=1)

    moved: Shapes = shapely.transform(shapes, pixels)
    return moved
