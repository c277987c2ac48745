"""Fixtures that write small rasters and labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

CRS = "EPSG:32633"
TRANSFORM = from_origin(500_000, 5_000_000, 10, 10)


@pytest.fixture
def write_raster(tmp_path: Path) -> Callable[..., Path]:
    """Writes `(C, H, W)` or `(H, W)` to a GeoTIFF in the test's folder."""

    def write(
        name: str,
        values: Any,
        *,
        bands: Sequence[str] = (),
        crs: str | None = CRS,
        transform: Any = TRANSFORM,
        nodata: float | None = None,
        **options: Any,
    ) -> Path:
        values = np.asarray(values)
        values = values[None] if values.ndim == 2 else values
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        georeference = {} if crs is None else {"crs": crs, "transform": transform}
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            count=values.shape[0],
            height=values.shape[1],
            width=values.shape[2],
            dtype=values.dtype,
            nodata=nodata,
            **georeference,
            **options,
        ) as file:
            file.write(values)
            for i, band in enumerate(bands, 1):
                file.set_band_description(i, band)
        return path

    return write


@pytest.fixture
def write_polygons(tmp_path: Path) -> Callable[..., Path]:
    """Writes polygons, given in pixels (column, row) of `TRANSFORM`, to a vector file."""

    def write(
        name: str,
        shapes: Sequence[Any],
        crs: str | None = CRS,
        to: str | None = None,
        **fields: Any,
    ) -> Path:
        from shapely import affinity

        t = TRANSFORM
        moved = [affinity.affine_transform(s, [t.a, t.b, t.d, t.e, t.c, t.f]) for s in shapes]
        frame = geopandas.GeoDataFrame(fields, geometry=moved, crs=crs)
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (frame if to is None else frame.to_crs(to)).to_file(path)
        return path

    return write
