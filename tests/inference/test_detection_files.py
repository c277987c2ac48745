"""Files of objects, in scenes with and without a CRS."""

from __future__ import annotations

from pathlib import Path

import geopandas
import numpy as np
import pytest
import torch
from torch import Tensor

from geotune.boxes.structures import Detections
from geotune.inference.detection import detect_scene
from geotune.inference.sliding_window import WindowOptions
from helpers.inference_scenes import write_scene


def one_box(images: Tensor) -> list[Detections]:
    box = torch.tensor([[4.0, 6, 10, 12]])
    return [Detections(box, torch.ones(1), torch.zeros(1, dtype=torch.int64)) for _ in images]


@pytest.mark.parametrize(
    ("crs", "geojson"),
    [("EPSG:32633", True), (None, False), ("+proj=laea +lat_0=40 +lon_0=15", False)],
)
def test_a_geojson_is_only_written_if_it_can_state_the_crs(
    tmp_path: Path, crs: str | None, geojson: bool
) -> None:
    source = write_scene(tmp_path / "s.tif", np.ones((2, 16, 16), np.float32), crs=crs)
    result = detect_scene(
        one_box,
        source,
        tmp_path / "out",
        WindowOptions(bands=["red"], window=16),
        classes=["ship"],
        scores={"ship": 0.5},
        nms_threshold=0.5,
        points=False,
        name="s",
    )
    table = geopandas.read_file(result.package_path)
    expected = [source.transform @ corner for corner in ((4, 6), (10, 12))]
    (left, top), (right, bottom) = expected
    assert sorted(table.total_bounds) == pytest.approx(sorted([left, top, right, bottom]))
    assert (table.crs is None) == (crs is None)
    assert (
        (result.text_path is not None) == geojson == (tmp_path / "out/s_objects.geojson").exists()
    )
    if result.text_path is None:
        assert any("GeoJSON" in note for note in result.notes)
    else:
        text = geopandas.read_file(result.text_path)
        assert text.crs == table.crs
        assert text.total_bounds == pytest.approx(table.total_bounds)
