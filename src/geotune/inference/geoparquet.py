"""Write features to a GeoParquet 1.1 file in batches (geoparquet.org); needs pyarrow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
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
"""Geometries `(N)` and fields by name, `(N)`, or `(N, D)` for lists."""


def check_pyarrow(option: str = "--format parquet") -> None:
    """Raise `GeotuneError` that names an option if pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise GeotuneError(
            f"{option}: requires pyarrow: pip install 'geotune[lists]'",
            code="dependency-missing",
        ) from error


class GeoParquetWriter(AbstractContextManager["GeoParquetWriter"]):
    """Writes batches of features; the file appears when the context exits without an error.

    Without a batch there is no file. Without a CRS the file states that it is unknown.

    Args:
        path: of the file.
        geometry_type: such as `Polygon`.
        crs: of the geometries.
    """

    def __init__(self, path: Path, *, geometry_type: str, crs: CRS | None) -> None:
        self.path, self.geometry_type, self.crs = path, geometry_type, crs
        self._bounds = np.full(4, np.nan)
        self._writer: Any = None
        self._stack = ExitStack()

    def __enter__(self) -> GeoParquetWriter:
        return self

    def write(self, batch: Features) -> None:
        """Add features; all batches have the same fields."""
        import pyarrow as pa
        from pyarrow import parquet

        geometry, fields = batch
        columns = {name: _column(values) for name, values in fields.items()}
        columns["geometry"] = pa.array(shapely.to_wkb(geometry), pa.binary())
        table = pa.table(columns)
        if self._writer is None:
            partial = self._stack.enter_context(replacing(self.path))
            self._writer = parquet.ParquetWriter(partial, table.schema)
        self._writer.write_table(table)
        if not len(geometry):
            return
        box = shapely.total_bounds(geometry)  # NaN if all are missing
        self._bounds[:2] = np.fmin(self._bounds[:2], box[:2])
        self._bounds[2:] = np.fmax(self._bounds[2:], box[2:])

    @property
    def started(self) -> bool:
        """Whether a batch was written; without one there is no file."""
        return self._writer is not None

    def __exit__(self, *error: Any) -> None:
        try:
            if self._writer is not None:
                geo = _metadata(self.geometry_type, self.crs, self._bounds)
                self._writer.add_key_value_metadata({"geo": geo})
        finally:
            if self._writer is not None:
                self._writer.close()
            self._stack.__exit__(*error)


def write_geoparquet(
    path: Path, batches: Iterable[Features], *, geometry_type: str, crs: CRS | None
) -> None:
    """Write batches of features, at least one; see `GeoParquetWriter`."""
    with GeoParquetWriter(path, geometry_type=geometry_type, crs=crs) as writer:
        for batch in batches:
            writer.write(batch)
        assert writer.started, "no batch"


def _column(values: NDArray[Any]) -> Any:
    """A column of numbers, texts, or of lists from an array `(N, D)`."""
    import pyarrow as pa

    if values.ndim == 2:
        offsets = np.arange(len(values) + 1, dtype=np.int32) * values.shape[1]
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()))
    return pa.array(values, pa.string() if values.dtype == object else None)


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
