"""Polygons are written to a GeoPackage in batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyogrio
import shapely
from rasterio.crs import CRS
from rasterio.transform import from_origin

from geotune.inference.polygon_writer import write_polygons


def test_all_batches_are_written_and_georeferenced(tmp_path: Path) -> None:
    corners = np.arange(6000)
    boxes = shapely.box(corners, 0, corners + 1, 2)
    count = write_polygons(
        tmp_path / "boxes.gpkg",
        ((i % 2, one) for i, one in enumerate(boxes)),
        ["land", "water"],
        shape=(2, 6000),
        crs=CRS.from_epsg(32633),
        transform=from_origin(5e5, 5e6, 10, 20),
    )
    table = pyogrio.read_dataframe(tmp_path / "boxes.gpkg")
    assert count == len(table) == 6000
    assert table["class"].value_counts().to_dict() == {"land": 3000, "water": 3000}
    assert (table["pixels"] == 2).all()
    assert (table["area_m2"] == 400).all()
    last = table[table.geometry.centroid.x == 5e5 + 59995]
    assert last.geometry.iloc[0].bounds == (559990, 4999960, 560000, 5000000)
