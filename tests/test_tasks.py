"""Every task end to end: recipe, run, test and prediction."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import from_origin

import geotune
from geotune.api.fitting import fit
from geotune.api.planning import plan
from geotune.api.prediction import predict
from geotune.config import load_recipe, parse_recipe
from helpers.adapters import check_adapter_alone
from helpers.errors import raises
from helpers.second_pass import check_no_second_pass_is_needed

Values = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, write_tiny_scenes: Callable[..., Path]) -> Path:
    """The tiny scenes with heights and trees, and a folder of images with label CSVs."""
    folder = write_tiny_scenes(tmp_path_factory.mktemp("tasks"))
    for kind in ("heights", "trees", "images/bright", "images/dark"):
        (folder / kind).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in "abcd":
        with rasterio.open(folder / "scenes" / f"{name}.tif") as file:
            image, profile = file.read(), file.profile
        height = 250 + 0.1 * image.mean(axis=0)
        height[:4] = np.nan
        with rasterio.open(
            folder / "heights" / f"{name}.tif", "w", **{**profile, "count": 1}
        ) as file:
            file.write(height.astype("float32"), 1)
        if name != "b":  # no tree
            points = rng.uniform(0, 64, (12, 2))
            lines = "".join(f"{x:.2f},{y:.2f}\n" for x, y in points)
            (folder / "trees" / f"{name}.csv").write_text("x,y\n" + lines)
    rows = []
    for i in range(18):
        kind, split = ("bright", "dark")[i % 2], ("train", "train", "val", "test")[i // 2 % 4]
        side = 24 + 4 * (i % 3)
        image = (600 if kind == "bright" else 300) + 40 * rng.standard_normal((3, side, side))
        path = folder / "images" / kind / f"{kind}_{i}.tif"
        transform = from_origin(500_000 + 1000 * i, 5_000_000, 10, 10)
        with rasterio.open(
            path, "w", driver="GTiff", count=3, height=side, width=side, dtype="float32",
            crs="EPSG:32633", transform=transform,
        ) as file:  # fmt: skip
            file.write(image.astype("float32"))
            file.descriptions = ("red", "green", "nir")
        both = "bright;large" if side > 24 else "bright"
        rows.append([f"{kind}/{path.name}", both if kind == "bright" else "", i * 1000.0, split])
    for column, index in (("labels", 1), ("value", 2)):
        with (folder / f"{column}.csv").open("w", newline="") as table:
            writer = csv.writer(table)
            writer.writerow(["path", column, "split"])
            writer.writerows([row[0], row[index], row[3]] for row in rows)
    return folder


def recipe_values(made: Path, values: Values, which: str) -> dict[str, Any]:
    images = {"kind": "images", "images": f"{made}/images", "samples": 8}
    by_column = {"split": {"kind": "column"}}
    scenes = values(data=made)["data"]
    changes: dict[str, dict[str, Any]] = {
        "regress": {
            "task": {"kind": "regress", "quantity": "height", "unit": "m"},
            "data": {**scenes, "labels": f"{made}/heights/{{stem}}.tif"},
        },
        "density": {
            "task": {"kind": "density", "objects": "trees"},
            "data": {
                **scenes, "labels": f"{made}/trees/{{stem}}.csv", "missing_labels": "empty",
                "sigma": "20 m",
            },
        },
        "classify": {
            "task": {"kind": "classify", "classes": ["bright", "dark"]},
            "data": {**images, "split": {"kind": "random", "val": 0.2, "test": 0.2}},
            "decoder": {"kind": "global_pool"},
        },
        "multilabel": {
            "task": {"kind": "classify", "classes": ["bright", "large"], "multilabel": True},
            "data": {**images, **by_column, "labels": f"{made}/labels.csv"},
            "decoder": {"kind": "global_pool", "pool": "attention", "levels": "all"},
        },
        "value": {
            "task": {"kind": "regress", "level": "image", "quantity": "cost"},
            "data": {**images, **by_column, "labels": f"{made}/value.csv"},
            "decoder": {"kind": "global_pool"},
        },
    }  # fmt: skip
    return values({"train.epochs": 2, **changes[which]})


KINDS = ("regress", "density", "classify", "multilabel", "value")


@pytest.fixture(scope="module")
def runs(
    made: Path, tiny_values: Values, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Trains and tests a recipe, once."""
    folder = tmp_path_factory.mktemp("runs")

    def run(which: str) -> Path:
        path = folder / which
        if not path.exists():
            fit(parse_recipe(recipe_values(made, tiny_values, which)), run=path)
            geotune.test(path)
        return path

    return run


@pytest.mark.slow
@pytest.mark.parametrize("which", KINDS)
def test_run_has_metrics_history_and_report(runs: Callable[[str], Path], which: str) -> None:
    run = runs(which)
    metrics = json.loads((run / "metrics.json").read_text())
    main = {
        "regress": "rmse", "density": "mae", "classify": "f1", "multilabel": "ap", "value": "rmse"
    }  # fmt: skip
    for split in ("val", "test"):
        assert next(iter(metrics[split])) == main[which]
        assert metrics[split][main[which]] is not None
    # no metrics by region if every image is its own region
    assert bool(metrics["regions"]["val"]) == (which in ("regress", "density"))
    history = list(csv.DictReader((run / "history.csv").open()))
    assert len(history) == 2 and float(history[0][f"val/{main[which]}"]) >= 0
    report = (run / "report.html").read_text()
    assert "IoU" not in report and "nan" not in re.sub(r"data:[^\"]*", "", report)
    assert report.count("<img") >= 4
    if which in ("regress", "density", "value"):
        assert metrics["pairs"]["val"] and report.count("Predictions versus labels") >= 2


@pytest.mark.slow
@pytest.mark.parametrize("which", KINDS)
def test_best_epoch_is_validated_once(
    made: Path, tiny_values: Values, tmp_path: Path, which: str
) -> None:
    check_no_second_pass_is_needed(parse_recipe(recipe_values(made, tiny_values, which)), tmp_path)


@pytest.mark.slow
def test_adapter_holds_the_label_statistics(runs: Callable[[str], Path], made: Path) -> None:
    """With them, predictions are in the unit of the labels."""
    task = json.loads((runs("regress") / "adapter.json").read_text())["task"]
    assert 280 < task["mean"] < 320 and 3 < task["std"] < 40
    assert load_recipe(runs("regress") / "recipe.yaml")[0].task.mean is None  # type: ignore[union-attr]
    density = json.loads((runs("density") / "adapter.json").read_text())["task"]
    assert 0 < density["std"] < 0.1
    metrics = json.loads((runs("regress") / "metrics.json").read_text())
    assert metrics["val"]["rmse"] < 60, "not 300: the model starts at the mean of the labels"


@pytest.mark.slow
def test_regression_map(runs: Callable[[str], Path], made: Path, tmp_path: Path) -> None:
    scene = made / "scenes" / "d.tif"
    [result] = predict(runs("regress"), [str(scene)], tmp_path, device="cpu")
    with rasterio.open(result.files[0]) as file, rasterio.open(scene) as image:
        assert result.files[0].name == "d_height.tif"
        assert (file.crs, file.transform, file.shape) == (image.crs, image.transform, image.shape)
        assert file.dtypes == ("float32",) and np.isnan(file.nodata)
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert (file.descriptions, file.units) == (("height",), ("m",))
        values = file.read(1)
    assert 200 < values.mean() < 400
    assert f"mean height {values.mean(dtype=np.float64):.4g} m" in result.summary


@pytest.mark.slow
def test_scene_count_is_the_sum_of_the_density_map(
    runs: Callable[[str], Path], made: Path, tmp_path: Path
) -> None:
    scene = made / "scenes" / "d.tif"
    [result] = predict(runs("density"), [str(scene)], tmp_path, device="cpu")
    with rasterio.open(result.files[0]) as file:
        total = float(file.read(1).sum(dtype=np.float64))
    assert result.total == pytest.approx(total, rel=1e-4)  # type: ignore[attr-defined]
    assert result.summary == f"{total:,.1f} trees"


@pytest.mark.slow
@pytest.mark.parametrize("which", ["classify", "multilabel", "value"])
def test_image_table(runs: Callable[[str], Path], made: Path, tmp_path: Path, which: str) -> None:
    pattern = f"{made}/images/*/*.tif"
    [result] = predict(runs(which), [pattern], tmp_path, device="cpu", batch_size=5)
    rows = list(csv.DictReader((tmp_path / "images.csv").open()))
    assert len(rows) == 18 and Path(rows[0]["path"]).is_file()
    outlines = json.loads((tmp_path / "images.geojson").read_text())["features"]
    assert len(outlines) == 18 and outlines[0]["geometry"]["type"] == "Polygon"
    assert 14 < outlines[0]["geometry"]["coordinates"][0][0][0] < 16, "longitude"
    if which == "classify":
        assert list(rows[0]) == ["image", "path", "label", "bright", "dark"]
        assert all(abs(float(r["bright"]) + float(r["dark"]) - 1) < 1e-4 for r in rows)
        assert all(float(r[r["label"]]) >= 0.5 for r in rows)
    elif which == "multilabel":
        assert all(set(r["labels"].split(";")) <= {"bright", "large", ""} for r in rows)
    else:
        assert all(abs(float(r["cost"])) < 1e6 for r in rows)
    # the prediction of an image does not depend on the others in its batch
    alone = tmp_path / "alone"
    predict(runs(which), [rows[3]["path"]], alone, device="cpu")
    [row] = csv.DictReader((alone / "images.csv").open())
    for key, value in row.items():
        if key not in ("image", "path", "label", "labels"):
            assert float(value) == pytest.approx(float(rows[3][key]), rel=1e-3, abs=1e-4)
    assert result.windows == 18


@pytest.mark.slow
@pytest.mark.parametrize("which", KINDS)
def test_adapter_alone_predicts_like_the_run(
    runs: Callable[[str], Path], made: Path, tmp_path: Path, which: str
) -> None:
    images = sorted((made / "images").glob("*/*.tif"))
    scenes = [made / "scenes" / "d.tif"] if which in ("regress", "density") else images
    check_adapter_alone(runs(which), scenes, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("which", KINDS)
def test_uncertainty_of_every_task(
    runs: Callable[[str], Path], made: Path, tmp_path: Path, which: str
) -> None:
    """Maps of numbers get a map of their deviation, tables get columns; equal runs never differ."""
    maps = which in ("regress", "density")
    scenes = [made / "scenes" / "d.tif"] if maps else sorted((made / "images").glob("*/*.tif"))
    run = runs(which)
    [result] = predict(run, scenes, tmp_path / "d4", tta="d4", uncertainty=True, device="cpu")
    [same] = predict(run, scenes, tmp_path / "same", ensemble=[run], uncertainty=True, device="cpu")
    assert result.notes[0] == "means of 8 predictions: one model in 8 orientations"
    if maps:
        for folder, differ in (("d4", True), ("same", False)):
            with rasterio.open(tmp_path / folder / "d_uncertainty.tif") as file:
                deviations = file.read(1)
            valid = ~np.isnan(deviations)
            assert valid.any() and (deviations[valid] >= 0).all()
            assert (deviations[valid].max() > 1e-6) == differ
    else:
        column = "standard_deviation" if which == "value" else "disagreement"
        for folder, differ in (("d4", True), ("same", False)):
            rows = list(csv.DictReader((tmp_path / folder / "images.csv").open()))
            assert (max(float(row[column]) for row in rows) > 1e-6) == differ
            if which != "value":
                assert all(0 <= float(row["entropy"]) <= 1 for row in rows)
    if which in ("value", "regress", "density"):
        with raises("option-not-applicable", mentions=["--tta d4"]):
            predict(run, scenes, tmp_path / "alone", uncertainty=True, device="cpu")
    assert same.windows == result.windows


@pytest.mark.slow
def test_image_table_notes_other_units(
    runs: Callable[[str], Path], made: Path, tmp_path: Path
) -> None:
    for path in (made / "images").glob("*/*.tif"):
        with rasterio.open(path) as file:
            values, profile, bands = file.read() / 10_000, file.profile, file.descriptions
        with rasterio.open(tmp_path / path.name, "w", **profile) as changed:
            changed.write(values)
            changed.descriptions = bands
    [result] = predict(runs("value"), [f"{tmp_path}/*.tif"], tmp_path / "out", device="cpu")
    assert len(result.notes) == 1 and "10,000 times smaller" in result.notes[0]


@pytest.mark.slow
def test_image_larger_than_the_training_window_is_an_error(
    runs: Callable[[str], Path], made: Path, tmp_path: Path
) -> None:
    image = made / "scenes" / "a.tif"
    with raises("image-too-large", file=image, mentions=["64x64", 32]):
        predict(runs("classify"), [str(image)], tmp_path, device="cpu")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("which", KINDS)
def test_plan_estimates_the_memory_of_every_task(
    made: Path, tiny_values: Values, which: str
) -> None:
    planned = plan(parse_recipe(recipe_values(made, tiny_values, which)))
    assert planned.peak.total > 0 and not planned.prediction.computed


@pytest.mark.slow
@pytest.mark.parametrize("which", ["density", "classify"])
def test_tasks_train_from_cached_features(
    made: Path, tiny_values: Values, which: str, tmp_path: Path
) -> None:
    values = recipe_values(made, tiny_values, which)
    values["train"] |= {"cache": "memory", "epochs": 1}
    result = fit(parse_recipe(values), run=tmp_path / "run")
    assert result.status == "trained" and result.metrics


# ---------------------------------------------------------------- incompatible options
@pytest.mark.parametrize(
    ("which", "changes", "mentions"),
    [
        ("classify", {"decoder": {"kind": "unet"}}, ["decoder.kind", "unet", "global_pool"]),
        ("regress", {"decoder": {"kind": "global_pool"}}, ["decoder.kind", "linear, fcn, unet"]),
        ("classify", {"task": {"kind": "regress"}, "decoder": {"kind": "fcn"}}, ["scenes"]),
        ("regress", {"data": {"class_values": {"a": 1}}}, ["data.class_values", "segment"]),
        ("regress", {"data": {"sigma": "2 m"}}, ["data.sigma", "density"]),
        ("density", {"data": {"sigma": "wide"}}, ["'wide'", "3 px"]),
    ],
)  # fmt: skip
def test_incompatible_sections_are_errors(
    made: Path, tiny_values: Values, which: str, changes: dict[str, Any], mentions: list[str]
) -> None:
    values = recipe_values(made, tiny_values, which)
    for section, change in changes.items():
        values[section] = change if section != "data" else {**values[section], **change}
    with raises("recipe-invalid", mentions=mentions):
        parse_recipe(values)


def test_constant_labels_are_an_error(made: Path, tiny_values: Values, tmp_path: Path) -> None:
    text = (made / "value.csv").read_text()
    (tmp_path / "same.csv").write_text(re.sub(r",[\d.]+,", ",3.0,", text))
    values = recipe_values(made, tiny_values, "value")
    values["data"]["labels"] = str(tmp_path / "same.csv")
    with raises("labels-constant", key="data.labels", mentions=[3]):
        fit(parse_recipe(values), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()
