"""Reading vector labels, and transforming their geometries to pixels of a scene."""

from __future__ import annotations

import functools
import warnings
import zipfile
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import geopandas
import numpy as np
import pyogrio.errors
import pyogrio.raw
import shapely
from numpy.typing import NDArray
from pyproj import CRS as ProjCRS
from pyproj.exceptions import ProjError
from rasterio.crs import CRS
from rasterio.errors import RasterioError

from geotune.data.labels.labelme import IMAGE_SIZE, read_labelme
from geotune.data.labels.longitudes import beside_scene, unwrap
from geotune.data.raster.align import WARP
from geotune.data.raster.crs import bounds, transformer
from geotune.data.raster.file_pixels import as_stored, from_file_pixels
from geotune.data.raster.longitude_axis import longitude_axis
from geotune.data.raster.source import RasterSource, apply_affine
from geotune.errors import GeotuneError
from geotune.utils.paths import is_system_file, ogr_path
from geotune.utils.remote import gdal_name, scheme_of
from geotune.utils.text import join_some, nfc

CLASS_FIELDS = ("class", "label", "classname")
PARQUET = (".parquet", ".geoparquet")
GDB = ".gdb"
"""A FileGDB is a folder."""

VECTOR_SUFFIXES = (
    *PARQUET, GDB, ".fgb", ".geojson", ".geojsonl", ".geojsons", ".gml", ".gpkg", ".json", ".kml",
    ".shp", ".zip",
)  # fmt: skip
Shapes = NDArray[np.object_]
MULTI, COLLECTION = 4, 7
"""Shapely's type ids of MultiPoint, the first of several members, and GeometryCollection."""


def is_vector(path: Path) -> bool:
    """Whether a file has the suffix of a vector format."""
    return path.suffix.lower() in VECTOR_SUFFIXES


def read_frame(path: Path, raster: RasterSource) -> geopandas.GeoDataFrame:
    """Read the labels of a scene from a file with one layer.

    Outlines in pixels, as in labelme's files, become coordinates of the scene. Raises
    `GeotuneError` if the file is missing, unreadable or about an image of another size.
    """
    frame = read_features(path)
    if IMAGE_SIZE not in frame.attrs:
        return frame
    size, shape = frame.attrs[IMAGE_SIZE], as_stored(raster).shape
    if size is not None and size != shape:
        raise GeotuneError(
            f"{path}: is about an image of {size[0]}x{size[1]} pixels (H x W), but {raster.path} "
            f"has {shape[0]}x{shape[1]}; use the annotated image",
            code="image-size",
            file=path,
        )
    shapes = frame.geometry.transform(partial(from_file_pixels, raster))
    shapes = shapes.affine_transform(raster.transform.to_shapely())
    crs = None if raster.crs is None else raster.crs.to_wkt()
    return frame.set_geometry(shapes.set_crs(crs))


def label_exists(path: Path) -> bool:
    """Whether a label file exists; one format is a folder."""
    return path.is_dir() if path.suffix.lower() == GDB else path.is_file()


def read_features(path: Path) -> geopandas.GeoDataFrame:
    """Read a file with one layer. Raises `GeotuneError` if it is missing or unreadable."""
    if not path.exists():
        raise GeotuneError(
            f"{path}: label file not found; check data.labels",
            code="file-missing",
            key="data.labels",
            file=path,
        )
    return _read_frame(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)  # many scenes may share one file
def _read_frame(path: Path, mtime_ns: int) -> geopandas.GeoDataFrame:
    try:
        if path.suffix.lower() in PARQUET:
            return _simplify_collections(geopandas.read_parquet(str(path)))
        if path.suffix.lower() == ".json" and (frame := read_labelme(path)) is not None:
            return frame
        source = _source(path)
        layers = [name for name, kind in pyogrio.list_layers(source) if kind is not None]
        if len(layers) > 1:
            raise GeotuneError(
                f"{path}: has the layers {', '.join(layers)}; expected one: save the labels in a "
                "separate file",
                code="file-unreadable",
                file=path,
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # columns of types that are not used here
            frame = _read_pyogrio(path, source)
    except (
        OSError,
        zipfile.BadZipFile,
        pyogrio.errors.DataSourceError,
        pyogrio.errors.DataLayerError,
        shapely.errors.GEOSException,
        ValueError,
    ) as error:
        raise GeotuneError(
            f"{path}: cannot be read as vector labels ({error}); write it again",
            code="file-unreadable",
            file=path,
        ) from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise GeotuneError(
            f"{path}: has no geometry; expected a geometry per feature",
            code="geometry-type",
            file=path,
        )
    return _simplify_collections(frame)


def _source(path: Path) -> str | bytes:
    """What GDAL opens: of a file on a server its content, as every feature is read anyway."""
    if path.suffix.lower() == ".zip":
        return _in_archive(path)
    several_files = path.suffix.lower() in (".shp", GDB)
    remote = scheme_of(path) is not None
    if remote:
        return gdal_name(path) if several_files else path.read_bytes()
    return ogr_path(path)


def _in_archive(path: Path) -> str:
    """GDAL's name of the only vector file in a zip archive, such as a zipped shapefile."""
    found = set()
    with zipfile.ZipFile(path) as archive:
        for name in map(PurePosixPath, archive.namelist()):
            members = [name, *name.parents]
            folder = next((each for each in members if each.suffix.lower() == GDB), None)
            is_file = folder is not None or name.suffix.lower() in VECTOR_SUFFIXES
            if is_file and not is_system_file(name):
                found.add(str(folder or name))
    if len(found) != 1:
        raise GeotuneError(
            f"{path}: contains {join_some(sorted(found)) or 'no vector file'}; expected one vector "
            "file",
            code="file-unreadable",
            file=path,
        )
    return f"/vsizip/{{{path.absolute()}}}/{found.pop()}"


def _simplify_collections(frame: geopandas.GeoDataFrame) -> geopandas.GeoDataFrame:
    """Replace geometry collections by their members of the highest dimension.

    Clipping leaves points and lines beside polygons.
    """
    shapes: Shapes = np.array(frame.geometry.array, dtype=object)
    collections = np.flatnonzero(shapely.get_type_id(shapes) == COLLECTION)
    if not len(collections):
        return frame
    for i in collections:
        parts = shapely.get_parts(shapes[i])
        while (nested := shapely.get_type_id(parts) >= MULTI).any():
            parts = np.concatenate([parts[~nested], shapely.get_parts(parts[nested])])
        dimensions = shapely.get_dimensions(parts)
        kept = parts[(dimensions == dimensions.max(initial=-1)) & (dimensions >= 0)]
        if len(kept):
            dimension = int(dimensions.max())
            unite = (shapely.multipoints, shapely.multilinestrings, shapely.multipolygons)
            shapes[i] = kept[0] if len(kept) == 1 else unite[dimension](kept)
        else:
            shapes[i] = None
    return frame.set_geometry(geopandas.GeoSeries(shapes, index=frame.index, crs=frame.crs))


def _read_pyogrio(path: Path, source: str | bytes) -> geopandas.GeoDataFrame:
    try:
        return pyogrio.read_dataframe(source)
    except shapely.errors.GEOSException as error:  # does not state which feature is invalid
        wkb = pyogrio.raw.read(source, columns=[])[2]
        shapes = shapely.from_wkb(wkb, on_invalid="ignore")
        invalid = shapely.is_missing(shapes) & np.array([shape is not None for shape in wkb])
        features = [f"feature {i + 1}" for i in np.flatnonzero(invalid).tolist()]
        raise GeotuneError(
            f"{path}: {join_some(features, 3)}: has an invalid geometry ({error}); correct or "
            "remove it",
            code="row-invalid",
            file=path,
        ) from error


def class_column(path: Path, frame: geopandas.GeoDataFrame, class_field: str | None) -> str | None:
    """The column with the class: `class_field`, else one of `CLASS_FIELDS`; None without any.

    With `class_field=""` there is none. Raises `GeotuneError` if the file lacks `class_field`.
    """
    columns = attribute_columns(frame)
    if class_field:
        column = next((name for name in columns if nfc(name) == nfc(class_field)), None)
        if column is None:
            raise GeotuneError(
                f"{path}: has no field {class_field!r} (data.class_field); "
                f"it has {', '.join(columns) or 'none'}",
                code="class-field",
                key="data.class_field",
                file=path,
            )
        return column
    if class_field is not None:
        return None
    by_lower = {column.lower(): column for column in columns}
    return next((by_lower[name] for name in CLASS_FIELDS if name in by_lower), None)


def class_values(frame: geopandas.GeoDataFrame, column: str) -> list[Any]:
    """The values of the column with the class, `""` for a missing one."""
    present = frame[column].notna()
    return [value if known else "" for value, known in zip(frame[column], present, strict=True)]


def attribute_columns(frame: geopandas.GeoDataFrame) -> list[str]:
    """Names of all columns but the geometry."""
    return [str(name) for name in frame.columns if name != frame.geometry.name]


def check_crs(path: Path, crs: Any, raster: RasterSource) -> None:
    """Raise `GeotuneError` if only one of a label file and its scene has a CRS."""
    if (crs is None) != (raster.crs is None):
        without, other, known = (
            (raster.path, f"its labels {path}", crs)
            if raster.crs is None
            else (path, f"its scene {raster.path}", raster.crs)
        )
        advice = "assign the first the CRS of its coordinates"
        if raster.control_points is not None:
            advice = WARP
        raise GeotuneError(
            f"{without}: has no CRS, but {other} has one ({known}); {advice}",
            code="crs-missing",
            file=without,
        )


def may_intersect(shapes: Shapes, crs: Any, raster: RasterSource) -> NDArray[np.bool_]:
    """Which shapes may lie in the scene, so that not all labels of a country are reprojected."""
    every = np.ones(len(shapes), dtype=np.bool_)
    if crs is None or raster.crs is None:
        return every
    try:
        labels_crs = CRS.from_wkt(crs.to_wkt())
        to_labels = transformer(raster.crs, labels_crs)
        box = bounds(raster.transform, raster.shape)
        west, south, east, north = to_labels.transform_bounds(*box)
    except (ProjError, RasterioError, GeotuneError):
        return every
    if not np.isfinite([west, south, east, north]).all() or west > east:  # over the 180th meridian
        return every
    margin_x, margin_y = 0.05 * (east - west), 0.05 * (north - south)
    left, bottom, right, top = shapely.bounds(shapes).T
    west, east = west - margin_x, east + margin_x
    axis = longitude_axis(labels_crs)
    across = (
        (left < east) & (right > west)
        if axis is None
        else axis.turns_within(left, right, west, east).any(axis=0)
    )
    near: NDArray[np.bool_] = across & (bottom < north + margin_y) & (top > south - margin_y)
    return near


def to_pixels(path: Path, crs: Any, shapes: Shapes, raster: RasterSource) -> Shapes:
    """Transform shapes to pixels (column, row) of the scene; empty if its CRS cannot express them.

    Raises `GeotuneError` if there is no transformation from their CRS to the scene's.
    """
    if not len(shapes):
        return shapes
    if crs is not None and raster.crs is not None:
        if not _is_crs_of(crs, raster.crs.to_wkt()):
            # projections bend straight edges: add vertices to long ones
            spans = shapely.bounds(shapes)
            longest = float(np.nanmax(spans[:, 2:] - spans[:, :2], initial=0.0))
            if longest > 0:
                shapes = shapely.segmentize(shapes, longest / 64)
        shapes = to_scene_crs(path, crs, shapes, raster).copy()
        # those that the scene's CRS cannot express are far from the scene
        shapes[~np.isfinite(shapely.bounds(shapes)).all(axis=1)] = shapely.Polygon()
    inverse = ~raster.transform

    def pixels(points: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack(apply_affine(inverse, points[:, 0], points[:, 1]), axis=1)

    transformed: Shapes = shapely.transform(shapes, pixels)
    return transformed


def _is_crs_of(crs: Any, scene_wkt: str) -> bool:
    """Whether labels are in the CRS of their scene.

    Files state a local (engineering) CRS in words that differ: those of one name and unit are one.
    """
    if crs == scene_wkt or not crs.is_engineering:
        return bool(crs == scene_wkt)
    try:
        own = ProjCRS.from_wkt(scene_wkt)
    except ProjError:
        return False
    if not own.is_engineering or crs.name != own.name:
        return False
    units, own_units = ([axis.unit_conversion_factor for axis in c.axis_info] for c in (crs, own))
    return units == own_units


def to_scene_crs(path: Path, crs: Any, shapes: Shapes, raster: RasterSource) -> Shapes:
    """Reproject the shapes of a file to the scene's CRS, beside the scene (`longitudes`).

    Raises `GeotuneError` if there is no transformation from their CRS to the scene's.
    """
    assert raster.crs is not None
    target = raster.crs.to_wkt()
    axis = longitude_axis(raster.crs)
    if not _is_crs_of(crs, target):
        original = shapes
        try:
            series = geopandas.GeoSeries(shapes, crs=crs).to_crs(target)
        except ProjError as error:
            raise GeotuneError(
                f"{path}: cannot be reprojected to the CRS of {raster.path} ({error}); save the "
                "labels in that CRS, as GeoPackage: a GeoJSON is read as degrees",
                code="crs-incompatible",
                file=path,
            ) from error
        shapes = np.asarray(series.array, dtype=object)
        if axis is not None:
            shapes = unwrap(shapes, axis, raster, original, longitude_axis(crs))
    return shapes if axis is None else beside_scene(shapes, axis, raster)
