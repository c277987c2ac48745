"""Objects, polygons and labels as GeoJSON in degrees."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError
from rasterio.crs import CRS
from rasterio.transform import Affine

from geotune.errors import GeotuneError
from geotune.utils.paths import ogr_path
from geotune.view.layers import FeatureLayer, Role
from geotune.view.map_grid import MapGrid

MAX_FEATURES = 20_000
"""Of a layer with more, those with the highest scores are shown; else the first."""

DIGITS = 7
"""Decimals of degrees: about a centimetre."""

SHOWN = ("class", "score", "pixels", "area_m2")
"""Properties that are sent to the browser."""


def feature_file_layer(path: Path, title: str, role: Role) -> FeatureLayer:
    """The shapes of a file that geotune wrote. Raises `GeotuneError` if it cannot be read."""
    info = _reading(path, pyogrio.read_info)
    table = _reading(path, pyogrio.read_dataframe, columns=["class"], read_geometry=False)
    classes = tuple(sorted(map(str, table["class"].unique()))) if "class" in table else ()

    def features(grid: MapGrid) -> dict[str, Any]:
        frame: geopandas.GeoDataFrame = _reading(path, pyogrio.read_dataframe)
        properties = {name: frame[name].to_numpy() for name in SHOWN if name in frame}
        shapes = grid.features_to_lonlat(frame.geometry.to_numpy(), frame.crs)
        return collection(shapes, properties)

    point = "Point" in str(info["geometry_type"])
    return FeatureLayer(title, role, features, classes, "point" if point else "polygon")


def collection(shapes: NDArray[Any], properties: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """A FeatureCollection of shapes in degrees; `note` says if some are not shown.

    Args:
        shapes: `(N)`; empty ones are left out.
        properties: `(N)` each.
    """
    usable = np.flatnonzero(~shapely.is_empty(shapes) & ~shapely.is_missing(shapes))
    note = None
    if len(usable) > MAX_FEATURES:
        note = f"{MAX_FEATURES:,} of {len(usable):,} are shown"
        if "score" in properties:
            note += ", those with the highest scores"
            scores = np.nan_to_num(properties["score"][usable].astype(float), nan=-1.0)
            usable = usable[np.argsort(-scores, kind="stable")]
        usable = usable[:MAX_FEATURES]
    rounded = shapely.set_precision(shapes[usable], 10.0**-DIGITS, mode="pointwise")
    texts = shapely.to_geojson(rounded)
    features = [
        {
            "type": "Feature",
            "id": int(i),
            "geometry": json.loads(text),
            "properties": {name: _plain(values[i]) for name, values in properties.items()},
        }
        for i, text in zip(usable, texts, strict=True)
    ]
    return {"type": "FeatureCollection", "features": features, "note": note}


def _plain(value: Any) -> Any:
    """A value of JSON."""
    if isinstance(value, np.floating | float):
        return round(float(value), 4) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else str(value)


def _reading(path: Path, read: Any, **options: Any) -> Any:
    try:
        return read(ogr_path(path), **options)
    except (DataSourceError, DataLayerError, ValueError, OSError) as error:
        raise GeotuneError(
            f"{path}: cannot be read as a file of shapes ({error}); write it again",
            code="file-unreadable",
            file=path,
        ) from error


def read_windows(path: Path) -> tuple[list[dict[str, Any]], NDArray[Any], Any]:
    """The rows of a `worst_<split>.gpkg`, their outlines and their CRS, worst first.

    Raises `GeotuneError` if the file cannot be read or has other columns.
    """
    frame: geopandas.GeoDataFrame = _reading(path, pyogrio.read_dataframe)
    missing = [name for name in ("rank", "score", "scene") if name not in frame]
    if missing:
        raise GeotuneError(
            f"{path}: has no column {', '.join(missing)}; run geotune test again",
            code="file-unreadable",
            file=path,
        )
    frame = frame.sort_values("rank")
    rows: Sequence[Any] = frame[["rank", "score", "scene"]].to_dict("records")
    return [dict(row) for row in rows], frame.geometry.to_numpy(), frame.crs


def features_grid(path: Path) -> MapGrid | None:
    """A grid around the shapes of a file; None without a CRS or shapes."""
    info = _reading(path, pyogrio.read_info, force_total_bounds=True)
    bounds = info["total_bounds"]
    if info["crs"] is None or bounds is None or not np.isfinite(bounds).all():
        return None
    west, south, east, north = bounds
    side = max(east - west, north - south) / 1000 or 1e-4
    shape = (int((north - south) / side) + 1, int((east - west) / side) + 1)
    transform = Affine(side, 0, west, 0, -side, north)
    crs = CRS.from_user_input(info["crs"])
    return MapGrid(crs, transform, shape, transform, local=False)
