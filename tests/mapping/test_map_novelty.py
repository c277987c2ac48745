"""`geotune map --novelty`: that of `predict`, whoever computes the tiles."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyogrio
import pytest
import rasterio
import torch

from geotune.adapter_config import ADAPTER_CONFIG
from geotune.api.novelty import write_novelty
from geotune.api.prediction import predict
from geotune.factory.build_model import load_adapter
from geotune.inference.novelty import NoveltyReference, window_features
from geotune.mapping.map_scenes import map_scenes
from helpers.corrupt_files import break_block
from helpers.errors import raises
from helpers.stac import check_item

pytestmark = pytest.mark.usefixtures("workers_here")

SHIPS: dict[str, Any] = {
    "task": {"kind": "detect", "classes": ["ship"], "boxes": "horizontal"},
    "decoder": {
        "kind": "fcos", "channels": 8, "depth": 1, "num_levels": 2, "score_threshold": 0.0,
        "max_detections": 20,
    },
}  # fmt: skip
HEIGHT = {"task": {"kind": "regress", "quantity": "height", "mean": 5, "std": 2}}
FROZEN = {"method": {"kind": "frozen"}}


@pytest.fixture(scope="module")
def known(
    untrained: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """A named adapter whose features of noise are its reference."""

    def save(name: str, changes: dict[str, Any] | None = None) -> Path:
        folder = tmp_path_factory.mktemp("run") / name
        shutil.copytree(untrained(changes), folder)
        model = load_adapter(folder).model.eval()
        images = 460 + 100 * torch.randn(24, 3, 64, 64, generator=torch.manual_seed(0))
        with torch.no_grad():
            maps, _ = model.encode(images)
        skip = len(model.encoder.taps) - len(model.encoder.reader.taps)
        features = window_features(maps, images, skip)
        digest = write_novelty(folder, NoveltyReference.fit(features[:16], features[16:]))
        values = json.loads((folder / ADAPTER_CONFIG).read_text())
        values["prediction"]["novelty"] = digest
        (folder / ADAPTER_CONFIG).write_text(json.dumps(values))
        return folder

    return save


USUAL: dict[str, Any] = {"device": "cpu", "novelty": True, "batch_size": 1, "qgis": False}


def mapped(run: Any, scenes: Path, out: Path, **options: Any) -> Any:
    """A map of the scene `a`, or of all scenes of a folder without it."""
    images = scenes / "a.tif" if (scenes / "a.tif").is_file() else scenes / "*.tif"
    return map_scenes(run, str(images), out, **{**USUAL, "tile": 64, **options})


def predicted(run: Path, scenes: Path, out: Path, **options: Any) -> Any:
    return predict(run, str(scenes / "a.tif"), out, **{**USUAL, **options})


def check_equal(one: Path, other: Path) -> None:
    """Check that the maps of novelty are the same bytes, and differ between windows."""
    path = one / "a_novelty.tif"
    assert path.read_bytes() == (other / path.name).read_bytes()
    with rasterio.open(path) as file:
        distances = file.read(2)
    assert (distances[:30, :30] == 255).all() and len(np.unique(distances)) > 3


def test_novelty_of_a_class_map_is_that_of_predict(
    known: Callable[..., Path], scenes: Path, tmp_path: Path
) -> None:
    run = known("land")
    mapped(run, scenes, tmp_path / "map", workers=2, qgis=True)
    predicted(run, scenes, tmp_path / "map" / "as_predicted")
    found = tmp_path / "map" / "scenes"
    check_equal(found, tmp_path / "map" / "as_predicted")
    assert "a_novelty.tif" in (found / "a.qgs").read_text()
    assert (found / "a_novelty.qml").is_file()
    check_item(found / "a_item.json")
    asset = json.loads((found / "a_item.json").read_text())["assets"]["novelty"]
    assert asset["href"] == "./a_novelty.tif" and asset["file:checksum"]
    with raises("map-exists", mentions=["novelty is True, now False"]):
        mapped(run, scenes, tmp_path / "map", novelty=False)


def test_zarr_has_the_bands_of_the_novelty(
    known: Callable[..., Path], scenes: Path, tmp_path: Path
) -> None:
    zarr = pytest.importorskip("zarr")
    mapped(known("height", HEIGHT), scenes, tmp_path / "map", zarr=True, batch_size=8)
    group = zarr.open_group(tmp_path / "map" / "maps.zarr", mode="r")
    with rasterio.open(tmp_path / "map" / "scenes" / "a_novelty.tif") as file:
        for index, band in enumerate(("percentile", "distance")):
            array = group[f"a/novelty_{band}"]
            np.testing.assert_array_equal(array[:], file.read(index + 1))
            assert array.attrs["scale_factor"] == file.scales[index]


def test_novelty_of_objects_is_that_of_predict(
    known: Callable[..., Path], scenes: Path, tmp_path: Path
) -> None:
    run = known("ships", SHIPS)
    mapped(run, scenes, tmp_path / "map", score=0.0)
    predicted(run, scenes, tmp_path / "predicted", score=0.0)
    check_equal(tmp_path / "map" / "scenes", tmp_path / "predicted")
    one, two = (
        pyogrio.read_dataframe(folder / "a_objects.gpkg")
        for folder in (tmp_path / "map" / "scenes", tmp_path / "predicted")
    )
    assert len(one) > 20 and one.equals(two) and one["novelty"].notna().all()


def test_several_runs_have_each_their_novelty(
    known: Callable[..., Path], scenes: Path, tmp_path: Path
) -> None:
    runs = [known("land", FROZEN), known("ships", SHIPS | FROZEN), known("height", HEIGHT)]
    mapped(runs, scenes, tmp_path / "map", tile=128, overlap=0.25)
    for run in runs:
        predicted(run, scenes, tmp_path / run.name, overlap=0.25)
        check_equal(tmp_path / "map" / run.name / "scenes", tmp_path / run.name)


def test_columns_of_tables_are_those_of_predict(
    known: Callable[..., Path], scenes: Path, tmp_path: Path
) -> None:
    changes = {
        "task": {"kind": "classify", "classes": ["x", "y"]},
        "decoder": {"kind": "global_pool"},
        "data": {"kind": "images", "images": "i", "window": 32, "split": {"kind": "random"}},
    }
    runs = [known("kinds", changes), known("frozen", changes | FROZEN)]
    mapped(runs, scenes, tmp_path / "map", window=256)
    for run in runs:
        predicted(run, scenes, tmp_path / run.name, window=256)
        one, two = (
            list(csv.reader((folder / "images.csv").read_text().splitlines()))
            for folder in (tmp_path / "map" / run.name / "scenes", tmp_path / run.name)
        )
        assert one == two and one[0][-2:] == ["novelty", "novelty_distance"]


@pytest.mark.parametrize("changes", [{}, SHIPS])
def test_novelty_has_no_data_where_a_scene_cannot_be_read(
    known: Callable[..., Path], scenes: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    folder = tmp_path / "scenes"
    folder.mkdir()
    shutil.copy(scenes / "b.tif", folder)
    break_block(folder / "b.tif", 2)
    result = mapped(known("run", changes), folder, tmp_path / "map", batch_size=8)
    assert any(each.tile == "b/128_0" for each in result.failed)
    with rasterio.open(tmp_path / "map" / "scenes" / "b_novelty.tif") as file:
        values = file.read(1)
    assert (values[128:192] == 255).all() and (values[40:60] != 255).all()


def test_a_run_without_a_reference_is_refused_before_anything_is_written(
    known: Callable[..., Path], untrained: Callable[..., Path], scenes: Path, tmp_path: Path
) -> None:
    without = untrained()
    for runs in (without, [known("land"), without]):
        with raises("option-not-applicable", mentions=[f"geotune finish {without}"]):
            mapped(runs, scenes, tmp_path / "map")
        assert not (tmp_path / "map").exists()
