"""Outlines of images in the GeoJSON beside a table of predictions."""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import shapely.geometry
from rasterio.transform import Affine, from_origin
from shapely.geometry import box

from geotune.data.raster.open_raster import open_raster
from geotune.data.raster.source import RasterSource
from geotune.inference.image_table import _OutlineWriter


def raster(folder: Path, crs: str, transform: Affine) -> RasterSource:
    path = folder / "a.tif"
    grid = {"crs": crs, "transform": transform}
    with rasterio.open(
        path, "w", driver="GTiff", height=1, width=2, count=1, dtype="uint8", **grid
    ) as file:
        file.write(np.ones((1, 1, 2), dtype="uint8"))
    return open_raster(path)


@pytest.mark.parametrize("crs", ["EPSG:32633", 'LOCAL_CS["site",UNIT["metre",1]]'])
def test_images_in_a_local_crs_have_no_outline(tmp_path: Path, crs: str) -> None:
    source = raster(tmp_path, crs, from_origin(500_000, 5_000_000, 10, 10))
    with _OutlineWriter(tmp_path / "a.geojson") as writer:
        writer.write({"image": "a"}, source)
    [feature] = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert feature["properties"] == {"image": "a"}
    if crs.startswith("LOCAL"):
        assert feature["geometry"] is None
    else:
        assert feature["geometry"]["coordinates"][0][0] == pytest.approx([15, 45.15], abs=0.01)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:4087"])
@pytest.mark.parametrize("turns", [-1, 0, 1])
@pytest.mark.parametrize("start", [178.0, 179.0, 180.0, 181.0])
def test_images_beyond_the_180th_meridian(
    tmp_path: Path, crs: str, turns: int, start: float
) -> None:
    """Cut there, as RFC 7946 has it."""
    unit = 1 if crs == "EPSG:4326" else 2 * np.pi * 6378137 / 360
    transform = from_origin((start + 360 * turns) * unit, unit / 2, unit, unit)
    source = raster(tmp_path, crs, transform)
    with _OutlineWriter(tmp_path / "a.geojson") as writer:
        writer.write({}, source)
    [feature] = json.loads((tmp_path / "a.geojson").read_text())["features"]
    outline = shapely.geometry.shape(feature["geometry"])
    width = source.shape[1]
    parts = [(start, min(start + width, 180)), (max(start, 180) - 360, start + width - 360)]
    expected = [box(a, -1, b, 1) for a, b in parts if b > a]
    assert outline.bounds[0] >= -180 and outline.bounds[2] <= 180
    found = [g.bounds[::2] for g in getattr(outline, "geoms", [outline])]
    np.testing.assert_allclose(sorted(found), sorted(e.bounds[::2] for e in expected), atol=1e-9)
