"""A run on the map: scenes and labels of its recipe, worst windows, predictions on request."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
import yaml

import geotune
from geotune.errors import GeotuneError
from geotune.view.layers import RasterLayer
from geotune.view.open_content import open_content
from geotune.view.run_content import _windows

Serve = Callable[..., Any]


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, tiny_values: Callable[..., dict[str, Any]]
) -> Path:
    """A run on the tiny scenes, after `geotune test`."""
    folder = tmp_path_factory.mktemp("view-run")
    values = tiny_values({"train.run": str(folder / "run"), "train.epochs": 1})
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    result = geotune.fit(folder / "recipe.yaml")
    geotune.test(result.run)
    return Path(result.run)


def test_scenes_are_listed_by_split_with_image_and_labels(run: Path, tmp_path: Path) -> None:
    content = open_content([run], tmp_path)
    assert content.names == ["d", "c", "a", "b"]
    assert content.splits == {"d": "test", "c": "val", "a": "train", "b": "train"}
    scene = content.scene("d")
    assert [(layer.title, layer.role) for layer in scene.layers] == [
        ("image", "image"),
        ("labels", "labels"),
    ]
    labels = scene.layers[1]
    assert isinstance(labels, RasterLayer)
    # the disc of water of scene d
    (lon,), (lat,) = scene.grid.lonlat(np.array([8.5]), np.array([30.5]))
    assert labels.describe(scene.grid, lon, lat) == [("class", "water")]
    (lon,), (lat,) = scene.grid.lonlat(np.array([60.5]), np.array([5.5]))
    assert labels.describe(scene.grid, lon, lat) == [("class", "land")]


def test_worst_windows_lie_on_their_scenes(serve: Serve, run: Path) -> None:
    client = serve(run)
    overview = json.loads(client.ask("overview").body)
    names = [scene["name"] for scene in overview["scenes"]]
    windows = overview["windows"]
    assert {window["split"] for window in windows} == {"test", "val"}
    of_test = [window for window in windows if window["split"] == "test"]
    assert [window["rank"] for window in of_test] == list(range(1, len(of_test) + 1))
    assert [w["score"] for w in of_test] == sorted(w["score"] for w in of_test)
    assert {names[window["scene"]] for window in of_test} == {"d"}
    west, south, east, north = json.loads(client.ask("scenes/0").body)["bounds"]
    for window in of_test:
        place = json.loads(client.ask(f"windows/{window['number']}").body)
        assert west - 1e-9 <= place["bounds"][0] < place["bounds"][2] <= east + 1e-9
        assert south - 1e-9 <= place["bounds"][1] < place["bounds"][3] <= north + 1e-9
        assert len(place["outline"]) == 5


def test_a_window_of_a_block_lies_on_the_scene_that_was_cut(tmp_path: Path) -> None:
    names = ["s10 block 2.1", "s1 block 1.1", "s10", "gone block 1.1"]
    frame = geopandas.GeoDataFrame(
        {"rank": [1, 2, 3, 4], "score": [0.1, 0.2, 0.3, 0.4], "scene": names},
        geometry=[shapely.box(0, 0, 1, 1)] * 4,
    )
    frame.to_file(tmp_path / "worst_test.gpkg")
    scenes = {f"s{number}" for number in range(100)}
    windows = _windows(tmp_path / "worst_test.gpkg", "test", scenes)
    assert [window.scene for window in windows] == ["s10", "s1", "s10"]


def test_a_scene_is_predicted_on_request(
    serve: Serve, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(run)
    before = json.loads(client.ask("scenes/0").body)
    assert before["predictable"]
    content, may_start = client.server.pages.content, threading.Event()
    predict = content.predict

    def when_allowed(*args: Any) -> None:
        assert may_start.wait(60)
        predict(*args)

    monkeypatch.setattr(content, "predict", when_allowed)
    assert client.ask("scenes/0/predict", "POST").status == 202
    assert json.loads(client.ask("prediction").body)["state"] == "running"
    assert client.ask("scenes/1/predict", "POST").status == 409  # one at a time
    may_start.set()
    for _ in range(600):
        job = json.loads(client.ask("prediction").body)
        if job["state"] != "running":
            break
        time.sleep(0.1)
    assert job["state"] == "done", job
    after = json.loads(client.ask("scenes/0").body)
    assert not after["predictable"] and after["version"] != before["version"]
    titles = [layer["title"] for layer in after["layers"]]
    assert titles == [
        "image", "labels", "confidence", "probability of land", "probability of water", "entropy",
        "classes",
    ]  # fmt: skip
    # the map is that of geotune predict
    geotune.predict(run, [str(_image(run, "d"))], tmp_path / "maps", qgis=False)
    content = client.server.pages.content
    scene = content.scene("d")
    expected = open_content([tmp_path / "maps"], tmp_path).scene("d").layers[-2]
    for col, row in ((8.5, 30.5), (60.5, 5.5), (32.5, 32.5)):
        (lon,), (lat,) = scene.grid.lonlat(np.array([col]), np.array([row]))
        found = scene.layers[-1].describe(scene.grid, lon, lat)
        assert found == expected.describe(scene.grid, lon, lat) != []


def test_a_run_and_maps_of_its_scenes_are_joined(run: Path, tmp_path: Path) -> None:
    geotune.predict(run, [str(_image(run, "d"))], tmp_path / "maps")
    content = open_content([tmp_path / "maps", run], tmp_path)
    assert content.names == ["d", "c", "a", "b"]
    titles = [layer.title for layer in content.scene("d").layers]
    assert titles == ["image", "labels", "classes", "polygons"]
    visible = {layer.title: layer.visible for layer in content.scene("d").layers}
    assert visible["classes"] and not visible["labels"]


def test_a_failed_prediction_is_told(
    serve: Serve, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = serve(run)

    def fail(*_: object, **__: object) -> None:
        raise GeotuneError("weights are missing", code="file-missing")

    monkeypatch.setattr("geotune.factory.build_model.load_adapter", fail)
    assert client.ask("scenes/0/predict", "POST").status == 202
    for _ in range(300):
        job = json.loads(client.ask("prediction").body)
        if job["state"] != "running":
            break
        time.sleep(0.05)
    assert (job["state"], job["error"]) == ("failed", "weights are missing")
    assert json.loads(client.ask("scenes/0").body)["predictable"]


def _image(run: Path, name: str) -> Path:
    scenes = geotune.open_scenes(run / "recipe.yaml")
    return next(scene.raster.path for scene in scenes if scene.name == name)
