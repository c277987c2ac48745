"""Outlines of images in the GeoJSON beside a table of predictions."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

from geotune.data.raster.open_raster import open_raster
from geotune.inference.image_table import _OutlineWriter


@pytest.mark.parametrize("crs", ["EPSG:32633", 'LOCAL_CS["site",UNIT["metre",1]]'])
def test_images_in_a_local_crs_have_no_outline(tmp_path: Path, crs: str) -> None:
    path = tmp_path / "a.tif"
    grid = {"crs": crs, "transform": from_origin(500_000, 5_000_000, 10, 10)}
    with rasterio.open(
        path, "w", driver="GTiff", height=4, width=4, count=1, dtype="uint8", **grid
    ) as file:
        file.write(np.ones((1, 4, 4), dtype="uint8"))
    with _OutlineWriter(tmp_path / "a.geojson") as writer:
        writer.write({"image": "a"}, open_raster(path))
    [feature] = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert feature["properties"] == {"image": "a"}
    if crs.startswith("LOCAL"):
        assert feature["geometry"] is None
    else:
        assert feature["geometry"]["coordinates"][0][0] == pytest.approx([15, 45.15], abs=0.01)
