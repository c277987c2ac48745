"""Write features to a GeoParquet 1.1 file in batches (geoparquet.org); needs pyarrow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from geotune.errors import GeotuneError
from geotune.utils.atomic import replacing

Features = tuple[NDArray[Any], Mapping[str, NDArray[Any]]]
"""Geometries `(N)` and fields `(N)` by name."""


def check_pyarrow() -> None:
    """Raise `GeotuneError` if pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise GeotuneError(
            "--format parquet: requires pyarrow: pip install 'geotune[lists]'",
            code="dependency-missing",
        ) from error


def write_geoparquet(
    path: Path, batches: Iterable[Features], *, geometry_type: str, crs: CRS | None
) -> None:
    """Write batches of features, at least one; without a CRS the file states that it is unknown."""
    import pyarrow as pa
    from pyarrow import parquet

    bounds = np.full(4, np.nan)
    with replacing(path) as partial:
        writer = None
        try:
            for geometry, fields in batches:
                columns = {
                    name: pa.array(values, pa.string() if values.dtype == object else None)
                    for name, values in fields.items()
                }
                columns["geometry"] = pa.array(shapely.to_wkb(geometry), pa.binary())
                table = pa.table(columns)
                writer = writer or parquet.ParquetWriter(partial, table.schema)
                writer.write_table(table)
                if len(geometry):
                    box = shapely.total_bounds(geometry)
                    bounds[:2] = np.fmin(bounds[:2], box[:2])
                    bounds[2:] = np.fmax(bounds[2:], box[2:])
            assert writer is not None, "no batch"
            writer.add_key_value_metadata({"geo": _metadata(geometry_type, crs, bounds)})
        finally:
            if writer is not None:
                writer.close()


def _metadata(geometry_type: str, crs: CRS | None, bounds: NDArray[np.float64]) -> str:
    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": [geometry_type],
        "crs": None if crs is None else pyproj.CRS.from_wkt(crs.to_wkt()).to_json_dict(),
    }
    if np.isfinite(bounds).all():
        column["bbox"] = bounds.tolist()
    return json.dumps(
        {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    )
