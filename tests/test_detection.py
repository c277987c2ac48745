"""Detection end to end, from a recipe to GIS files, over methods and backbone families."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import from_origin
from torch import Tensor

import geotune as api
from geotune.adapter_config import load_adapter_config
from geotune.adapter_io import adapter_state, load_adapter_state
from geotune.api.run import load_run
from geotune.backbones.base import Backbone
from geotune.boxes.oriented import as_oriented, corners
from geotune.boxes.structures import DetectorOutput
from geotune.config import parse_recipe
from geotune.config.task_options import DetectOptions
from geotune.factory.build_model import build_training, load_adapter
from geotune.factory.save_model import save_model
from geotune.model import Model
from geotune.tasks.detect import Detect
from geotune.training.micro_batching import MicroBatcher
from geotune.training.training_module import TrainingModule
from geotune.types import BandStatistics, Batch, Normalization
from helpers.adapters import check_adapter_alone
from helpers.components import DETECTORS, make_decoder
from helpers.errors import raises
from helpers.second_pass import check_no_second_pass_is_needed

MakeBackbone = Callable[..., Backbone]
BANDS = ("B02", "B03", "B04", "B08")
SMALL: dict[str, dict[str, Any]] = {
    "faster_rcnn": {"channels": 16, "hidden": 16},
    "retinanet": {"channels": 16},
    "fcos": {"channels": 16, "depth": 1},
    "rotated_fcos": {"channels": 16, "depth": 1},
    "oriented_rcnn": {"channels": 16, "hidden": 16},
}


def model_of(backbone: Backbone, method: api.Method, kind: str) -> Model:
    torch.manual_seed(0)
    encoder = method.attach(backbone)
    detector = make_decoder(kind, encoder.taps, 2, **SMALL[kind])
    unchanged = Normalization(backbone.bands, (0.0,) * 4, (1.0,) * 4)
    return Model(unchanged, encoder, detector)


def boxes_of(kind: str) -> Literal["horizontal", "oriented"]:
    return "oriented" if kind in ("rotated_fcos", "oriented_rcnn") else "horizontal"


def targets_for(oriented: bool) -> list[dict[str, Tensor]]:
    boxes = torch.tensor([[8.0, 10.0, 30.0, 24.0], [36.0, 30.0, 46.0, 58.0]])
    one = {
        "boxes": as_oriented(boxes) if oriented else boxes,
        "labels": torch.tensor([0, 1]),
        "difficult": torch.tensor([False, False]),
    }
    none = {name: values[:0] for name, values in one.items()}
    return [one, none]


@pytest.mark.parametrize("kind", DETECTORS)
def test_every_detector_trains_on_every_class_of_backbone(
    make_backbone: MakeBackbone, family: str, kind: str
) -> None:
    model = model_of(make_backbone(family), api.Frozen(stem_width=0), kind)
    oriented = bool(model.decoder.oriented)
    images = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    targets = targets_for(oriented)
    outputs = model(images, targets=targets)
    loss = Detect(DetectOptions(classes=["a", "b"])).loss(outputs, targets)
    loss.backward()
    assert loss.isfinite()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("method", ["Frozen", "Lora", "Est", "Full"])
def test_methods_train_their_parameters_and_adapters_round_trip(
    make_backbone: MakeBackbone, method: str
) -> None:
    model = model_of(make_backbone("vit"), getattr(api, method)(), "rotated_fcos")
    images = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    losses = model(images, targets=targets_for(True)).losses
    torch.stack(list(losses.values())).sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    assert all(p.grad is not None for p in trained)
    assert all(p.grad is None for p in model.parameters() if not p.requires_grad)
    with torch.no_grad():
        for parameter in trained:
            parameter += 0.01 * torch.randn_like(parameter)
    other = model_of(make_backbone("vit"), getattr(api, method)(), "rotated_fcos")
    load_adapter_state(other, adapter_state(model), "test")

    def predict(network: Model) -> DetectorOutput:
        with torch.no_grad():
            outputs: DetectorOutput = network.eval()(images)
        return outputs

    for one, two in zip(predict(model).detections, predict(other).detections, strict=True):
        assert torch.equal(one.boxes, two.boxes) and torch.equal(one.scores, two.scores)


@pytest.mark.parametrize("kind", ["faster_rcnn", "oriented_rcnn"])
def test_validation_loss_does_not_depend_on_what_was_drawn_before(
    make_backbone: MakeBackbone, kind: str
) -> None:
    """Nor on the batches; and validation draws nothing from the stream that training uses."""
    model = model_of(make_backbone("vit"), api.Frozen(stem_width=0), kind).eval()
    images = torch.randn(2, 4, 64, 64, generator=torch.Generator().manual_seed(1))
    targets = targets_for(bool(model.decoder.oriented))
    task = Detect(DetectOptions(classes=["a", "b"], boxes=boxes_of(kind)))
    batch = Batch({"images": images}, targets)
    found: list[Tensor] = []
    for seed, size in ((1, 2), (2, 2), (3, 1)):
        module = TrainingModule(
            model,
            task,
            MicroBatcher(size),
            total_steps=1,
            monitor="ap50",
            lr=1e-3,
            backbone_lr=None,
            weight_decay=0.0,
            schedule="constant",
            warmup=0.0,
            seed=seed,
        )
        module.trainer = SimpleNamespace(num_val_batches=[1])
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        with torch.no_grad():
            module.validation_step(batch, 0)
        assert torch.equal(state, torch.get_rng_state())
        found.append(module.val_loss.compute())
    assert found[0] == found[1]
    torch.testing.assert_close(found[0], found[2])


@pytest.mark.parametrize("kind", DETECTORS)
def test_adapter_files_of_every_detector_round_trip(tmp_path: Path, kind: str) -> None:
    values = values_of(tmp_path, decoder={"kind": kind, "score_threshold": 0.0, **SMALL[kind]})
    values["task"]["boxes"] = boxes_of(kind)
    recipe = parse_recipe(values)
    built = build_training(
        recipe, BandStatistics(("red", "green", "nir"), (0.0,) * 3, (1.0,) * 3, 9)
    )
    generator = torch.Generator().manual_seed(0)
    for tensor in adapter_state(built.model).values():
        if tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.01)
    save_model(tmp_path, built, recipe)
    images = torch.randn(1, 3, 64, 64, generator=generator)
    with torch.no_grad():
        [one] = built.model.eval()(images).detections
        [two] = load_adapter(tmp_path).model(images).detections
    assert len(one.scores) and torch.equal(one.boxes, two.boxes)
    assert torch.equal(one.scores, two.scores)


# ---------------------------------------------------------------- from recipe to files
SIDE, PIXEL = 96, 10.0
CORNER = 500_000.0, 5_000_000.0


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scenes with bright rotated rectangles, and their outlines as GeoJSON."""
    folder = tmp_path_factory.mktemp("objects")
    rows, cols = np.mgrid[:SIDE, :SIDE] + 0.5
    for i, name in enumerate("abcd"):
        rng = np.random.default_rng(i)
        corner = CORNER[0] + 2 * i * SIDE * PIXEL, CORNER[1]  # scenes do not overlap
        image = rng.normal(100, 5, (3, SIDE, SIDE))
        features = []
        for x, y in ((20, 22), (70, 30), (30, 72), (72, 76)):
            angle, w, h = rng.uniform(-1.5, 1.5), rng.uniform(18, 24), rng.uniform(7, 10)
            along = (cols - x) * np.cos(angle) + (rows - y) * np.sin(angle)
            across = (rows - y) * np.cos(angle) - (cols - x) * np.sin(angle)
            image[:, (abs(along) < w / 2) & (abs(across) < h / 2)] += 80
            ring = corners(np.array([x, y, w, h, angle])) * [PIXEL, -PIXEL] + corner
            ring = [*ring.tolist(), ring[0].tolist()]
            features.append(
                {
                    "type": "Feature",
                    "properties": {},
                    "geometry": {"type": "Polygon", "coordinates": [ring]},
                }
            )
        profile = {"driver": "GTiff", "height": SIDE, "width": SIDE, "count": 3}
        georeference = {"crs": "EPSG:32633", "transform": from_origin(*corner, PIXEL, PIXEL)}
        with rasterio.open(
            folder / f"{name}.tif", "w", dtype="float32", **profile, **georeference
        ) as file:
            file.write(image.astype(np.float32))
            file.descriptions = ("red", "green", "nir")
        named = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32633"}}
        text = {"type": "FeatureCollection", "crs": named, "features": features}
        (folder / f"{name}.geojson").write_text(json.dumps(text), encoding="utf-8")
    return folder


def values_of(scenes: Path, **changes: Any) -> dict[str, Any]:
    return {
        "backbone": {
            "name": "timm/test_resnet",
            "pretrained": False,
            "bands": ["red", "green", "nir"],
        },
        "method": {"kind": "full", "stem_width": 0},
        "decoder": {"kind": "rotated_fcos", "channels": 16, "depth": 1, "num_levels": 4},
        "task": {"kind": "detect", "classes": ["ship"], "boxes": "oriented"},
        "data": {
            "kind": "scenes",
            "scenes": f"{scenes}/*.tif",
            "labels": f"{scenes}/{{stem}}.geojson",
            "window": 96,
            "samples": 8,
            "split": {"kind": "list", "train": ["a", "b"], "val": ["c"], "test": ["d"]},
        },
        "train": {"epochs": 2, "batch_size": 4, "lr": 2e-3, "accelerator": "cpu"},
    } | changes


@pytest.mark.slow
def test_recipe_to_gis_files(
    scenes: Path, tmp_path: Path, geotune: Callable[..., tuple[int, str, str]]
) -> None:
    import yaml

    run, recipe = tmp_path / "run", tmp_path / "recipe.yaml"
    values = values_of(scenes)
    values["train"] |= {"epochs": 30, "run": str(run)}
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    code, _, err = geotune("fit", recipe)
    assert code == 0, err
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["val"]["ap50"] > 0.9
    assert metrics["counts"]["val"]["ship"]["true"] == 4
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "AP50" in page and "Precision-recall curve" in page
    assert geotune("test", run)[0] == 0
    threshold = json.loads((run / "metrics.json").read_text())["threshold"]
    saved = load_adapter_config(run).prediction.score_thresholds
    assert saved == threshold["val"] and saved["ship"] is not None
    assert threshold["test"] == threshold["val"]  # chosen on validation data only
    assert load_run(run).model().score_thresholds == threshold["val"]
    out = tmp_path / "out"
    code, _, err = geotune("predict", run, scenes / "d.tif", "--out", out, "--window", 64)
    assert code == 0, err
    package = geopandas.read_file(out / "d_objects.gpkg")
    text = geopandas.read_file(out / "d_objects.geojson")
    truth = geopandas.read_file(scenes / "d.geojson")
    assert package.crs == text.crs == truth.crs and len(package) == len(text)
    assert set(package.columns) == {"class", "score", "geometry"}
    assert len(package) == len(truth)
    assert all(package.centroid.within(outline).sum() == 1 for outline in truth.geometry)
    turned = ("predict", run, scenes / "d.tif", "--out", tmp_path / "d4", "--tta", "d4")
    code, _, err = geotune(*turned, "--window", 64, "--score", 0.3)
    assert code == 0 and "means of 8 predictions" in err, err
    fused = geopandas.read_file(tmp_path / "d4" / "d_objects.gpkg")
    assert len(fused) == len(truth)
    assert all(fused.centroid.within(outline).sum() == 1 for outline in truth.geometry)
    code, _, err = geotune(*turned, "--uncertainty")
    assert code == 1 and "option-not-applicable" in err
    check_adapter_alone(run, [scenes / "d.tif"], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "boxes"),
    [("rotated_fcos", "oriented"), ("faster_rcnn", "horizontal"), ("fcos", "points")],
)
def test_best_epoch_is_validated_once(scenes: Path, tmp_path: Path, kind: str, boxes: str) -> None:
    values = values_of(scenes, decoder={"kind": kind, **SMALL[kind]})
    values["task"]["boxes"] = boxes
    values["data"]["window"] = 48
    check_no_second_pass_is_needed(parse_recipe(values), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_train_a_detector(scenes: Path, tmp_path: Path, strategy: str) -> None:
    """Each process evaluates half of the validation windows, and every object counts once."""
    import yaml

    values = values_of(scenes)
    values["data"] |= {"window": 48, "samples": 4}
    values["train"] |= {"devices": 2, "strategy": strategy, "run": str(tmp_path / "run")}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(values), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "geotune", "fit", str(recipe), "--json"],
        capture_output=True,
        text=True,
        timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "trained"
    counts = json.loads((tmp_path / "run" / "metrics.json").read_text())["counts"]["val"]["ship"]
    assert counts["true"] + counts["missed"] == 4
    assert len(load_adapter(tmp_path / "run").task.classes) == 1


# ---------------------------------------------------------------- incompatible options
@pytest.mark.parametrize(
    ("decoder", "task", "mentions"),
    [
        ("unet", {"kind": "detect", "classes": ["a"]}, ["decoder.kind", "faster_rcnn, retinanet"]),
        ("fcos", {"kind": "segment", "classes": ["a", "b"]}, ["decoder.kind", "linear, fcn"]),
        ("fcos", {"kind": "detect", "classes": ["a"], "boxes": "oriented"}, ["rotated_fcos"]),
        ("oriented_rcnn", {"kind": "detect", "classes": ["a"]}, ["task.boxes", "faster_rcnn"]),
        ("rotated_fcos", {"kind": "detect", "classes": ["a"], "boxes": "points"}, ["faster_rcnn"]),
    ],
)
def test_incompatible_tasks_and_decoders_are_errors(
    tmp_path: Path, decoder: str, task: dict[str, Any], mentions: list[str]
) -> None:
    with raises("recipe-invalid", mentions=mentions):
        parse_recipe(values_of(tmp_path, decoder={"kind": decoder}, task=task))
