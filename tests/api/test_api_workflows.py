"""Fit, test and predict from Python."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

import geotune
from geotune.api.environment import pick_device
from geotune.api.fitting import fit, run_path
from geotune.api.prediction import predict
from geotune.config import Recipe, parse_recipe
from geotune.factory.build_model import build_task
from geotune.metrics.state import MetricState
from geotune.report.from_run import Examples
from geotune.tasks.base import Task
from geotune.training.evaluate import Evaluation
from geotune.training.window_metrics import WindowMetrics
from helpers.adapters import check_adapter_alone
from helpers.errors import raises


@pytest.fixture(scope="module")
def recipe(tiny_values: Callable[..., dict[str, Any]]) -> Recipe:
    return parse_recipe(tiny_values({"train.epochs": 1}))


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished and tested run, for tests that only read it."""
    folder = tmp_path_factory.mktemp("run") / "tiny"
    fit(recipe, run=folder)
    geotune.test(folder)
    return folder


def modification_times(run: Path) -> dict[str, int]:
    return {str(p.relative_to(run)): p.stat().st_mtime_ns for p in run.rglob("*")}


def test_train_run_sets_the_run_folder(
    recipe: Recipe, tiny_values: Callable[..., dict[str, Any]]
) -> None:
    assert run_path(recipe, "ships") == Path("runs/ships")
    moved = parse_recipe(tiny_values({"train.run": "elsewhere/x"}))
    assert run_path(moved, "ships") == Path("elsewhere/x")


def test_run_folder_has_all_files_and_a_summary(run: Path, recipe: Recipe) -> None:
    assert {path.name for path in run.iterdir()} == {
        "checkpoint",
        "recipe.yaml",
        "run.json",
        "metrics.json",
        "history.csv",
        "report.html",
        "examples.npz",
        "test_windows.npz",
        *(f"worst_{split}.{suffix}" for split in ("val", "test") for suffix in ("gpkg", "qml")),
        "adapter.safetensors",
        "adapter.json",
        "tensorboard",
        ".lock",
    }
    summary = json.loads((run / "run.json").read_text())
    assert summary["epochs"] == 1 and summary["best_epoch"] == 1
    assert 0 < summary["trained_parameters"] < summary["total_parameters"]
    assert summary["adapter_bytes"] == (run / "adapter.safetensors").stat().st_size
    assert summary["peak_memory"]["peak_bytes"] > 0 and summary["seconds"] > 0
    assert summary["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert summary["backbone"]["random_weights"] is True
    assert any("random weights" in note for note in summary["notes"])
    assert summary["data"]["parts"] == {"train": ["a", "b"], "val": ["c"], "test": ["d"]}


def test_metrics_of_the_test_windows_are_the_test_metrics(run: Path, recipe: Recipe) -> None:
    windows = WindowMetrics.load(run / "test_windows.npz")
    metrics = build_task(recipe).metrics()
    assert windows.names[1] == "d (0, 32)" and len(windows.names) == len(windows.states) == 4
    assert windows.scenes == windows.groups == ("d",) * 4
    assert windows.positions.tolist() == [[0, 0], [0, 32], [32, 0], [32, 32]]
    tested = json.loads((run / "metrics.json").read_text())
    merged = metrics.compute_from(MetricState.merge(windows.states))
    assert merged == tested["test"] == tested["regions"]["test"]["d"]


def test_unreadable_example_windows_are_an_error(run: Path, tmp_path: Path) -> None:
    assert Examples.load(run / "examples.npz").worst
    path = tmp_path / "examples.npz"
    np.savez_compressed(path, **{"best.0.name": np.array("a (0, 0)")})  # without pictures
    with raises("file-unreadable", file=path):
        Examples.load(path)
    path.write_bytes(b"no archive")
    with raises("file-unreadable", file=path):
        Examples.load(path)


def test_finished_run_is_not_changed(run: Path, recipe: Recipe) -> None:
    before = modification_times(run)
    again = fit(recipe, run=run)
    assert again.status == "complete"
    assert again.metrics == json.loads((run / "metrics.json").read_text())["val"]
    assert modification_times(run) == before


def test_run_folder_of_another_recipe_is_rejected(
    run: Path, tiny_values: Callable[..., dict[str, Any]]
) -> None:
    before = modification_times(run)
    other = parse_recipe(tiny_values({"train.epochs": 1, "train.seed": 7}))
    with raises("run-exists", key="train.run", file=run, mentions=["train.seed: 0 -> 7"]):
        fit(other, run=run)
    assert modification_times(run) == before


def test_overwrite_restarts_and_keeps_other_files(
    run: Path, tmp_path: Path, tiny_values: Callable[..., dict[str, Any]]
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "notes.txt").write_text("mine")
    (copy / "checkpoint" / "last.ckpt").write_text("of a run that --overwrite must not resume")
    other = parse_recipe(tiny_values({"train.epochs": 1, "train.seed": 7}))
    result = fit(other, run=copy, overwrite=True)
    assert result.status == "trained"
    assert (copy / "notes.txt").read_text() == "mine"
    assert "seed: 7" in (copy / "recipe.yaml").read_text()
    assert (copy / "adapter.safetensors").read_bytes() != (run / "adapter.safetensors").read_bytes()
    assert "test" not in json.loads((copy / "metrics.json").read_text())


def test_overwrite_rejects_a_folder_without_a_run(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with raises("folder-not-owned", file=tmp_path):
        fit(recipe, run=tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_test_adds_to_metrics_and_report(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["regions"]) == set(metrics["confusion"]) == {"val", "test"}
    assert metrics["regions"]["test"] == {"d": metrics["test"]}
    report = (run / "report.html").read_text(encoding="utf-8")
    for split in ("val", "test"):
        assert f"{metrics[split]['miou']:.3f}" in report
    assert "random" in report


def test_gap_and_test_use_the_score_threshold_of_validation(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    given = []

    class ThresholdTask:
        """A task whose metrics state that the threshold was set."""

        def __init__(self, task: Task) -> None:
            self.task = task

        def __getattr__(self, name: str) -> Any:
            return getattr(self.task, name)

        def metrics(self) -> Any:
            metrics = self.task.metrics()
            compute_from, compute = metrics.compute_from, metrics.compute
            metrics.compute_from = (  # type: ignore[method-assign]
                lambda state: {**compute_from(state), "has_threshold": 1.0}
            )
            metrics.compute = lambda: {**compute(), "has_threshold": 1.0}  # type: ignore[method-assign]
            return metrics

    def gap(data: Any, tested: Evaluation, evaluate: Any, compute: Any) -> None:
        given.extend([tested.metrics, compute(MetricState.merge(tested.windows.states))])

    monkeypatch.setattr(
        "geotune.factory.build_model.with_val_threshold", lambda task, details: ThresholdTask(task)
    )
    monkeypatch.setattr("geotune.training.generalization_gap.region_gap", gap)
    geotune.test(copy)
    assert [metrics.get("has_threshold") for metrics in given] == [1.0, 1.0]


def test_test_needs_a_finished_run(tmp_path: Path) -> None:
    with raises("run-incomplete", mentions=["run.json"]):
        geotune.test(tmp_path)


def test_test_needs_a_test_split(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    text = (copy / "recipe.yaml").read_text()
    assert "    test:\n    - d\n" in text
    (copy / "recipe.yaml").write_text(text.replace("    test:\n    - d\n", "    test: []\n"))
    with raises("split-empty", key="data.split.test", file=copy / "recipe.yaml"):
        geotune.test(copy)


def test_map_has_the_georeference_of_the_scene(
    run: Path, tiny_scenes: Path, tmp_path: Path
) -> None:
    scene = tiny_scenes / "scenes" / "d.tif"
    progress: list[tuple[str, int, int]] = []
    results = predict(
        run, [str(scene)], tmp_path, on_progress=lambda *done: progress.append(done), device="cpu"
    )
    with rasterio.open(scene) as image, rasterio.open(results[0].classes_path) as classes:
        assert classes.crs == image.crs and classes.transform == image.transform
        assert classes.shape == image.shape
        assert set(np.unique(classes.read(1))) <= {0, 1}
    assert progress[-1][0] == "d" and progress[-1][1] == progress[-1][2]


def test_copied_adapter_predicts_like_the_run(run: Path, tiny_scenes: Path, tmp_path: Path) -> None:
    """With the window of the training, which differs from that of a map's default."""
    check_adapter_alone(run, [tiny_scenes / "scenes" / "d.tif"], tmp_path, probabilities=True)


def test_predict_notes_other_units_and_pixel_sizes(
    run: Path, tiny_scenes: Path, tmp_path: Path
) -> None:
    scene = tiny_scenes / "scenes" / "d.tif"
    options: dict[str, Any] = {"polygons": False, "device": "cpu"}
    assert predict(run, scene, tmp_path / "maps", **options)[0].notes == ()
    with rasterio.open(scene) as file:
        transform = file.transform @ Affine.scale(6)
        with rasterio.open(
            tmp_path / "e.tif", "w", **{**file.profile, "transform": transform}
        ) as changed:
            changed.write(file.read() / 10_000)
            changed.descriptions = file.descriptions
    [result] = predict(run, [str(tmp_path / "e.tif")], tmp_path / "maps", **options)
    pixels, units = result.notes
    assert "6 times larger" in pixels and "10,000 times smaller" in units
    with pytest.warns(UserWarning, match="10,000 times smaller"):
        geotune.load_run(run).predict(tmp_path / "e.tif", device="cpu")


def test_predict_notes_images_that_match_in_another_case(
    run: Path, tiny_scenes: Path, tmp_path: Path
) -> None:
    for name in ("a.tif", "b.tif", "C.TIF"):
        shutil.copy(tiny_scenes / "scenes" / "d.tif", tmp_path / name)
    options: dict[str, Any] = {"polygons": False, "device": "cpu"}
    first, second = predict(run, [f"{tmp_path}/*.tif"], tmp_path / "maps", **options)
    [note] = first.notes
    assert "1 image" in note and "C.TIF" in note and second.notes == ()


def test_predict_writes_polygons_in_further_formats(
    run: Path, tiny_scenes: Path, tmp_path: Path
) -> None:
    scenes = [tiny_scenes / "scenes" / f"{name}.tif" for name in "cd"]
    formats: Any = ["parquet", "coco"]
    first, second = predict(run, scenes, tmp_path, formats=formats, device="cpu")
    assert first.files[-2:] == [tmp_path / "c_polygons.parquet", tmp_path / "polygons.coco.json"]
    tables = [geopandas.read_parquet(tmp_path / f"{name}_polygons.parquet") for name in "cd"]
    written = json.loads((tmp_path / "polygons.coco.json").read_text())
    annotations = written["annotations"]
    assert set(written) == {"annotations", "images", "categories", "licenses", "info"}
    assert [len(table) for table in tables] == [first.polygons, second.polygons]  # type: ignore[attr-defined]
    areas = [item["area"] * 100 for item in annotations]  # pixels of 10 m
    assert areas == pytest.approx([area for table in tables for area in table["area_m2"]])
    with raises("option-not-applicable", mentions=["--format coco", "without polygons"]):
        predict(run, scenes, tmp_path, formats=["coco"], polygons=False)


def test_predict_reads_one_file_per_band(run: Path, tiny_scenes: Path, tmp_path: Path) -> None:
    scene = tiny_scenes / "scenes" / "d.tif"
    with rasterio.open(scene) as file:
        profile = {**file.profile, "count": 1}
        for i, band in enumerate(("red", "green", "nir"), 1):
            path = tmp_path / "d" / f"{band}.tif"
            path.parent.mkdir(exist_ok=True)
            with rasterio.open(path, "w", **profile) as single:
                single.write(file.read(i), 1)
    options: dict[str, Any] = {"polygons": False, "device": "cpu"}
    pattern = str(tmp_path / "{scene}" / "{band}.tif")
    per_band = predict(run, [pattern], tmp_path / "per_band", **options)[0]
    stacked = predict(run, [str(scene)], tmp_path / "stacked", **options)[0]
    assert per_band.name == "d"
    with rasterio.open(per_band.classes_path) as one, rasterio.open(stacked.classes_path) as other:
        np.testing.assert_array_equal(one.read(1), other.read(1))


def test_predict_checks_all_scenes_before_it_writes(
    run: Path, tiny_scenes: Path, tmp_path: Path
) -> None:
    good = tiny_scenes / "scenes" / "d.tif"
    other = tmp_path / "other.tif"
    with rasterio.open(good) as file:
        pixels, profile = file.read([1, 2]), {**file.profile, "count": 2}
    with rasterio.open(other, "w", **profile) as two:
        two.write(pixels)
        two.descriptions = ("red", "swir")
    with raises("band-missing", mentions=["other.tif", "green, nir"]):
        predict(run, [str(good), str(other)], tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_missing_device_is_an_error() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    if torch.cuda.is_available():
        assert pick_device("auto").type == "cuda"
        return
    with raises("device-missing", key="train.accelerator", mentions=["gpu"]):
        pick_device("gpu")
