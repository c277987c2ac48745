"""`geotune export`: files that predict what the run predicts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from geotune.adapter_config import load_adapter_config
from geotune.adapter_io import adapter_state
from geotune.api.exporting import export
from geotune.api.prediction import predict
from geotune.boxes.nms import nms
from geotune.config import parse_recipe
from geotune.export_formats.exported_model import ExportedModel, as_yolo
from geotune.export_formats.metadata import Exported, describe
from geotune.export_formats.onnx_file import OnnxModel
from geotune.export_formats.pt2_file import read_pt2
from geotune.export_formats.select_detections import Candidates
from geotune.factory.build_model import build_training, load_adapter
from geotune.factory.save_model import save_model
from geotune.hub.manifest import write_manifest
from geotune.types import BandStatistics
from helpers.errors import raises
from helpers.hub_server import Hub

Values = Callable[..., dict[str, Any]]
WINDOW = 32
SENTINEL_2 = ["B02", "B03", "B04"]
STATISTICS = BandStatistics(("red", "green", "nir"), (500.0,) * 3, (100.0,) * 3, 9)


@pytest.fixture
def adapter(tmp_path: Path, tiny_values: Values, make_backbone: Any) -> Callable[..., Path]:
    """Saves the adapter of an untrained model with random weights, by changes of the recipe.

    `noise` is the standard deviation of what is added to the trained tensors.
    """
    del make_backbone  # registers the small backbones

    def save(changes: dict[str, Any] | None = None, noise: float = 0.1) -> Path:
        recipe = parse_recipe(tiny_values({"data.window": WINDOW, **(changes or {})}))
        bands = tuple(recipe.backbone.bands or STATISTICS.bands)
        built = build_training(recipe, replace(STATISTICS, bands=bands))
        generator = torch.Generator().manual_seed(1)
        for tensor in adapter_state(built.model).values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=noise)
        save_model(tmp_path / "adapter", built, recipe)
        return tmp_path / "adapter"

    return save


def pixels(batch: int, side: int = WINDOW, seed: int = 3) -> np.ndarray[Any, Any]:
    """Raw values with missing pixels."""
    generator = np.random.default_rng(seed)
    images = generator.normal(500, 100, (batch, 3, side, side)).astype(np.float32)
    images[0, :, :5, :9] = np.nan
    return images


def expected(folder: Path, images: np.ndarray[Any, Any]) -> torch.Tensor:
    """What the run predicts."""
    built = load_adapter(folder)
    with torch.no_grad():
        answer: torch.Tensor = built.task.postprocess(built.model(torch.from_numpy(images)))
    return answer


IMAGES = {
    "kind": "images",
    "images": "x",
    "labels": "x.csv",
    "split": {"kind": "column"},
    "window": WINDOW,
}
MAPS = {
    "ViT, est": {},
    "Swin, lora merged": {
        "backbone.name": "timm/small_swin",
        "method": {"kind": "lora"},
        "decoder": {"kind": "unet", "channels": [8, 8, 8, 8]},
    },
    "ResNet, full, density": {
        "backbone.name": "timm/test_resnet",
        "method": {"kind": "full"},
        "decoder": {"kind": "fcn", "channels": 8},
        "task": {"kind": "density", "objects": "tree", "std": 0.2},
    },
    "Galileo, est": {
        "backbone": {"name": "rslearn/galileo_nano", "pretrained": False, "bands": SENTINEL_2},
    },
    "Prithvi, est": {
        "backbone": {
            "name": "terratorch/prithvi_eo_v2_tiny_tl",
            "pretrained": False,
            "bands": SENTINEL_2,
        },
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("changes", MAPS.values(), ids=MAPS)
def test_onnx_predicts_as_the_run(adapter: Callable[..., Path], changes: dict[str, Any]) -> None:
    folder = adapter(changes)
    result = export(folder)
    assert result.path == folder / "adapter.onnx" and result.largest_difference < 1e-4
    assert result.inputs == {"images": ["batch", 3, WINDOW, WINDOW]}
    assert result.merged == (changes.get("method") == {"kind": "lora"})
    model = OnnxModel(result.path)
    for batch in (1, 3):
        images = pixels(batch)
        [found] = model({"images": images})
        np.testing.assert_allclose(found, expected(folder, images), atol=1e-4)
    description = model.properties["geotune"]
    bands = changes.get("backbone", {}).get("bands", ["red", "green", "nir"])
    assert description["inputs"]["images"]["bands"] == bands
    assert description["classes"] == list(load_adapter(folder).task.classes)
    assert str(Path.cwd()) not in result.path.read_bytes().decode("latin1")


DETECTORS = {"rotated_fcos": "oriented", "faster_rcnn": "points"}


@pytest.fixture
def detector(adapter: Callable[..., Path]) -> Callable[[str], Path]:
    """The adapter of a detector by its kind; its scores are no ties, whose order is open."""
    return lambda kind: adapter(
        {
            "backbone.name": "timm/test_resnet",
            "decoder": {"kind": kind, "channels": 16, "score_threshold": 0.05},
            "task": {
                "kind": "detect",
                "boxes": DETECTORS[kind],
                "classes": ["a", "b"],
                "pixel_m": 1.0,
            },
            "data.labels": "{stem}.geojson",
        },
        noise=0.03,
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", DETECTORS)
def test_onnx_finds_the_objects_of_the_run(detector: Callable[[str], Path], kind: str) -> None:
    folder = detector(kind)
    result = export(folder)
    assert result.largest_difference < 1e-4
    images = pixels(2)
    outputs = dict(zip(result.outputs, OnnxModel(result.path)({"images": images}), strict=True))
    for i, want in enumerate(expected(folder, images)):
        assert len(want.scores) > 1
        found = [torch.from_numpy(outputs[name]) for name in result.outputs]
        if kind == "rotated_fcos":  # candidates, from which NMS selects
            boxes, scores, classes = (values[i] for values in found)
            decoder: Any = load_adapter(folder).model.decoder
            good = scores > decoder.postprocess.score_threshold
            boxes, scores, classes = boxes[good], scores[good], classes[good]
            kept = nms(boxes, scores, decoder.postprocess.nms_threshold, classes)
        else:
            boxes, scores, classes, image = found
            kept = (image == i).nonzero()[:, 0]
        torch.testing.assert_close(scores[kept], want.scores, atol=1e-4, rtol=0)
        own = want.boxes if kind != "faster_rcnn" else (want.boxes[:, :2] + want.boxes[:, 2:]) / 2
        clear = torch.cat([want.scores.diff().abs() > 1e-3, torch.tensor([True])])
        clear[1:] &= clear[:-1].clone()  # equal scores may change places
        torch.testing.assert_close(boxes[kept][clear], own[clear], atol=1e-2, rtol=0)
        assert torch.equal(classes[kept][clear], want.classes[clear])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_pt2_runs_without_geotune(adapter: Callable[..., Path], precision: Any) -> None:
    """Frozen weights that were stored in 8 bits are exported with the same values."""
    folder = adapter(
        {
            "backbone.name": "timm/test_convnext",
            "method": {"kind": "frozen", "frozen_precision": "int8"},
            "decoder": {"kind": "global_pool"},
            "task": {"kind": "classify", "classes": ["a", "b", "c"]},
            "data": IMAGES,
        }
    )
    result = export(folder, "pt2", precision=precision)
    assert result.path.name == "adapter.pt2"
    module, description = read_pt2(result.path)
    images = pixels(3)
    with torch.no_grad():
        [found] = module(images=torch.from_numpy(images))
    limit = 1e-4 if precision == "fp32" else 1e-2
    torch.testing.assert_close(found, expected(folder, images), atol=limit, rtol=0)
    assert description["precision"] == precision
    assert not any("geotune" in str(node.target) for node in module.graph.nodes)  # type: ignore[union-attr]


@pytest.mark.slow
def test_an_adapter_of_the_hub(adapter: Callable[..., Path], hub: Hub, tmp_path: Path) -> None:
    folder = adapter()
    write_manifest(folder, [path.name for path in folder.iterdir()])
    hub.add("org/ships", folder)
    with raises("option-invalid", mentions=["hub:org/ships", "--out"]):
        export("hub:org/ships", "pt2")
    result = export("hub:org/ships", "pt2", tmp_path / "ships.pt2")
    assert result.path.is_file() and result.largest_difference <= result.tolerance


def test_nodata_value_and_size_of_the_images(adapter: Callable[..., Path]) -> None:
    folder = adapter({"backbone.name": "timm/test_resnet"})
    result = export(folder, "pt2", any_size=True, nodata=-9999)
    assert result.inputs == {"images": ["batch", 3, "height", "width"]}
    images = pixels(2, side=96)
    module, _ = read_pt2(result.path)
    filled = np.where(np.isnan(images), np.float32(-9999), images)
    with torch.no_grad():
        [found] = module(images=torch.from_numpy(filled))
    torch.testing.assert_close(found, expected(folder, images), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_file_that_predicts_otherwise_is_not_kept(
    adapter: Callable[..., Path], tiny_scenes: Path
) -> None:
    folder = adapter({"backbone.name": "timm/test_convnext"})
    scenes = f"{tiny_scenes}/scenes/*.tif"
    half = export(folder, precision="fp16", scenes=scenes)
    assert 0 < half.largest_difference < 1e-2 and half.windows > 3
    images = pixels(1)
    infinite = np.where(np.isnan(images), np.float32(-np.inf), images)
    for given in (images, infinite):
        [found] = OnnxModel(half.path)({"images": given})
        np.testing.assert_allclose(found, expected(folder, images), atol=1e-2)
    with raises("export-inaccurate", file=half.path, mentions=["tolerance of 1e-09"]):
        export(folder, precision="int8", scenes=scenes, tolerance=1e-9, overwrite=True)
    [kept] = OnnxModel(half.path)({"images": images})  # the earlier file stays
    assert np.array_equal(kept, found)


# ---------------------------------------------------------------- Deepness
def deepness_input(images: np.ndarray[Any, Any], properties: dict[str, Any]) -> Any:
    """What Deepness 0.6.5 passes to a model for pixels `(B, C, H, W)`."""
    mean, std = (
        np.array(properties[f"standardization_{name}"])[:, None, None] for name in ("mean", "std")
    )
    return ((images / 255 - mean) / std).astype(np.float32)


@pytest.mark.slow
def test_deepness_sets_up_a_segmentation(adapter: Callable[..., Path]) -> None:
    folder = adapter()
    result = export(folder, "deepness")
    model = OnnxModel(result.path)
    properties = model.properties
    assert properties["model_type"] == "Segmentor"
    assert properties["class_names"] == {"0": "land", "1": "water"}
    assert properties["tile_size"] == WINDOW and properties["seg_thresh"] == 0
    assert model.session.get_inputs()[0].shape == ["batch", 3, WINDOW, WINDOW]
    assert len(model.session.get_outputs()) == 1
    images = pixels(2, seed=4)[1:]
    [found] = model({"images": deepness_input(images, properties)})
    np.testing.assert_allclose(found, expected(folder, images), atol=1e-4)


@pytest.mark.slow
def test_deepness_gets_oriented_boxes_as_from_yolo(detector: Callable[[str], Path]) -> None:
    folder = detector("rotated_fcos")
    model = OnnxModel(export(folder, "deepness").path)
    assert model.properties["det_type"] == "YOLO_Ultralytics_obb"
    images = pixels(1)
    [found] = model({"images": images})
    rows = torch.from_numpy(found[0])
    assert rows.shape[0] == 4 + 2 + 1
    [want] = expected(folder, images)
    scores, classes = rows[4:6].max(dim=0)
    best = scores.argmax()
    torch.testing.assert_close(scores[best], want.scores[0], atol=1e-4, rtol=0)
    assert classes[best] == want.classes[0]
    torch.testing.assert_close(rows[[0, 1, 2, 3, 6], best], want.boxes[0], atol=1e-2, rtol=0)


def test_yolo_has_centre_and_sides_of_horizontal_boxes() -> None:
    boxes = torch.tensor([[[2.0, 4.0, 12.0, 8.0], [0.0, 0.0, 4.0, 4.0]]])
    scores = torch.tensor([[[0.2, 0.1], [0.3, 0.9]]])
    [rows] = as_yolo(Candidates(boxes, scores, (16, 16)))
    assert rows.T.tolist() == [[2, 2, 4, 4, *scores[0, 1]], [7, 6, 10, 4, *scores[0, 0]]]


# ---------------------------------------------------------------- errors
@pytest.mark.parametrize(
    ("options", "mentions"),
    [
        ({"to": "tflite"}, ["--to tflite", "onnx, pt2, deepness"]),
        ({"to": "pt2", "precision": "int8"}, ["--precision int8", "--to onnx"]),
        ({"precision": "int8"}, ["--precision int8", "--scenes"]),
        ({"window": 0}, ["--window 0"]),
        ({"tolerance": float("nan")}, ["--tolerance nan"]),
    ],
)
def test_invalid_options(
    adapter: Callable[..., Path], options: dict[str, Any], mentions: Sequence[str]
) -> None:
    with raises("option-invalid", mentions=list(mentions)):
        export(adapter(), **options)


def test_existing_file_stays(adapter: Callable[..., Path]) -> None:
    folder = adapter()
    path = folder / "adapter.onnx"
    path.write_text("mine")
    with raises("output-exists", file=path, mentions=["--overwrite"]):
        export(folder)
    assert path.read_text() == "mine"


@pytest.mark.slow
def test_images_of_any_size_are_multiples_of_the_stride(adapter: Callable[..., Path]) -> None:
    """Those of other sizes are refused: the traced model would give maps of other pixels.

    In half precision, whose conversion has to keep the refusal.
    """
    folder = adapter()
    result = export(folder, any_size=True, precision="fp16")
    model = OnnxModel(result.path)
    for shape in ((48, 80), (96, 64)):
        images = pixels(2, side=96)[..., : shape[0], : shape[1]]
        [found] = model({"images": images})
        difference = (torch.from_numpy(found) - expected(folder, images)).abs().max()
        assert difference < 1e-2
    for shape in ((40, 48), (48, 33)):
        with pytest.raises(Exception, match="multiples_of_16"):
            model({"images": pixels(1, side=64)[..., : shape[0], : shape[1]]})


@pytest.mark.slow
def test_archive_of_any_size_is_compared_at_sizes_that_it_accepts(
    adapter: Callable[..., Path],
) -> None:
    folder = adapter()
    result = export(folder, "pt2", any_size=True)
    module, _ = read_pt2(result.path)
    images = pixels(1, side=48)
    with torch.no_grad():
        [found] = module(images=torch.from_numpy(images))
    torch.testing.assert_close(found, expected(folder, images), atol=1e-4, rtol=0)


def test_path_that_cannot_be_written_is_refused_first(
    adapter: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = adapter()
    monkeypatch.setattr("geotune.factory.build_model.load_adapter", lambda *_, **__: 1 / 0)
    with raises("output-not-writable", file=folder, mentions=["is a folder"]):
        export(folder, out=folder, overwrite=True)
    path = folder / "adapter.json" / "x.onnx"
    with raises("output-not-writable", file=path, mentions=["is a file"]):
        export(folder, out=path)


def test_infinite_pixels_are_missing_as_in_predictions(adapter: Callable[..., Path]) -> None:
    model, images = ExportedModel(load_adapter(adapter())), torch.from_numpy(pixels(2))
    missing = images.isnan()
    infinite = images.where(~missing, torch.inf)
    infinite[0, 0] = images[0, 0].where(~missing[0, 0], -torch.inf)
    with torch.no_grad():
        torch.testing.assert_close(model(infinite), model(images), atol=0, rtol=0)


def test_description_is_json_if_nan_is_nodata(adapter: Callable[..., Path]) -> None:
    config = load_adapter_config(adapter())
    model = ExportedModel(load_adapter(adapter()), nodata=float("nan"))
    described = describe(Exported(model, config, WINDOW, False, "fp32"), "1")
    assert described["inputs"]["images"]["missing"] == ["NaN"]
    json.dumps(described, allow_nan=False)


def test_deepness_cannot_classify_images(adapter: Callable[..., Path]) -> None:
    folder = adapter(
        {
            "decoder": {"kind": "global_pool"},
            "task": {"kind": "classify", "classes": ["a", "b"]},
            "data": IMAGES,
        }
    )
    with raises("export-unsupported", mentions=["whole image", "--to onnx"]):
        export(folder, "deepness")
    assert not [*folder.glob("*.part")] and not [*folder.glob(".*")]


def test_missing_package(adapter: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with raises("dependency-missing", mentions=["geotune[export]", "--to pt2"]):
        export(adapter())


@pytest.mark.slow
def test_command_prints_inputs_and_outputs(adapter: Callable[..., Path], geotune: Any) -> None:
    folder = adapter()
    code, out, err = geotune("export", folder, "--to", "pt2", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert result["outputs"] == ["probabilities"] and result["merged"] is False
    assert result["inputs"] == {"images": ["batch", 3, WINDOW, WINDOW]}
    assert any("random windows" in note for note in result["notes"])


@pytest.mark.slow
def test_scene_mapped_without_geotune(adapter: Callable[..., Path], tmp_path: Path) -> None:
    """The script knows onnxruntime and rasterio; its map is that of `geotune predict`."""
    import rasterio
    from rasterio.transform import from_origin

    folder = adapter({"backbone.name": "timm/test_resnet"})
    result = export(folder)
    scene = tmp_path / "scene.tif"
    noise = np.random.default_rng(0).normal(500, 300, (3, 12, 10)).astype(np.float32)
    image = noise.repeat(7, 1).repeat(7, 2)
    image[:, :40, :20] = -1
    image[:, 50:60, 30:50] = np.inf
    options = {"driver": "GTiff", "count": 3, "height": 84, "width": 70, "dtype": "float32"}
    place = {"crs": "EPSG:32633", "transform": from_origin(5e5, 5e6, 10, 10), "nodata": -1}
    with rasterio.open(scene, "w", **options, **place) as file:
        file.write(image)
        file.descriptions = ("red", "green", "nir")
    script = Path(__file__).parents[2] / "recipes" / "onnx" / "map_scene.py"
    command = [sys.executable, script, result.path, scene, tmp_path / "alone.tif"]
    subprocess.run([*map(str, command)], check=True)
    predict(folder, scene, tmp_path / "maps", polygons=False, qgis=False, device="cpu")
    with (
        rasterio.open(tmp_path / "alone.tif") as alone,
        rasterio.open(tmp_path / "maps" / "scene_classes.tif") as own,
    ):
        classes = own.read(1)
        assert sorted(np.unique(classes)) == [0, 1, 255] and alone.transform == own.transform
        assert np.array_equal(alone.read(1), classes)
        names = {key: name for key, name in own.tags(1).items() if key.startswith("class_")}
        assert len(names) == 2 and names.items() <= alone.tags(1).items()
