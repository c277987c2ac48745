"""The STAC item of a model: valid, and with the values of its adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stac_model.schema import MLModelProperties

from geotune.adapter_config import AdapterConfig, PredictionSettings, TrainingImages
from geotune.config import parse_recipe
from geotune.stac.model_item import base_page, base_repository, model_item
from geotune.types import Normalization
from helpers.stac import check_item

BANDS = ("B02", "nir", "VV", "elevation")
FILES = {
    "adapter.safetensors": "./adapter.safetensors",
    "adapter.json": "./adapter.json",
    "report.html": "../run/report.html",
}
TASKS: dict[str, tuple[dict[str, Any], str]] = {
    "segment": ({"kind": "segment", "classes": ["bare land", "water"]}, "fcn"),
    "classify": ({"kind": "classify", "classes": ["a", "b", "c"]}, "global_pool"),
    "regress": ({"kind": "regress", "quantity": "height", "unit": "m"}, "fcn"),
    "regress images": ({"kind": "regress", "level": "image"}, "global_pool"),
    "density": ({"kind": "density"}, "fcn"),
    "boxes": ({"kind": "detect", "classes": ["ship"], "boxes": "horizontal"}, "fcos"),
    "oriented": ({"kind": "detect", "classes": ["ship"], "boxes": "oriented"}, "oriented_rcnn"),
    "points": ({"kind": "detect", "classes": ["tree"], "boxes": "points"}, "fcos"),
}


def config_of(task: dict[str, Any], decoder: str, **backbone: Any) -> AdapterConfig:
    kind = "images" if decoder == "global_pool" else "scenes"
    labels = {} if kind == "images" else {"scenes": "*.tif", "labels": "{stem}.gpkg"}
    images = {"images": "images"} if kind == "images" else {}
    recipe = parse_recipe(
        {
            "backbone": {"name": "timm/resnet18", **backbone},
            "method": {"kind": "lora", "rank": 4},
            "decoder": {"kind": decoder},
            "task": task,
            "data": {"kind": kind, **labels, **images, "split": {"kind": "random"}},
        }
    )
    sections = recipe.model_dump(mode="json", include={"backbone", "method", "decoder", "task"})
    base = {
        "name": "timm/resnet18",
        "fingerprint": "0",
        "source": "hub: timm/resnet18.a1_in1k",
        "licence": "apache-2.0",
    }
    images_of_training = TrainingImages(mean=[0] * 4, std=[1] * 4, dtypes=[], pixel_m=(10, 20))
    settings = PredictionSettings(window=64, images=images_of_training)
    normalization = Normalization(BANDS, (1.0, 2.0, 3.0, 4.0), (10.0, 20.0, 30.0, 40.0), None)
    return AdapterConfig(base, normalization, sections, settings, "0.2.0", "")


def written(item: dict[str, Any], folder: Path) -> dict[str, Any]:
    (folder / "card.json").write_text(json.dumps(item))
    return check_item(folder / "card.json")


@pytest.mark.parametrize("name", TASKS)
def test_the_item_of_every_task_is_valid(name: str, tmp_path: Path) -> None:
    item = model_item("My run!", config_of(*TASKS[name]), FILES, "2026-01-02T03:04:05+00:00")
    properties = written(item, tmp_path)["properties"]
    MLModelProperties.model_validate(properties)
    (output,) = properties["mlm:output"]
    shapes = {
        "segment": [-1, 2, 64, 64],
        "classify": [-1, 3],
        "regress": [-1, 1, 64, 64],
        "regress images": [-1, 1],
        "density": [-1, 1, 64, 64],
        "boxes": [-1, -1, 6],
        "oriented": [-1, -1, 7],
        "points": [-1, -1, 4],
    }
    assert output["result"]["shape"] == shapes[name]
    assert len(output["result"]["dim_order"]) == len(shapes[name])
    assert properties["mlm:tasks"] == output["tasks"]


def test_bands_and_normalisation_are_those_of_the_model(tmp_path: Path) -> None:
    config = config_of(*TASKS["segment"])
    item = written(model_item("run", config, FILES, "2026-01-02T03:04:05+00:00"), tmp_path)
    properties = item["properties"]
    assert properties["bands"] == [
        {"name": "B02", "eo:common_name": "blue", "eo:center_wavelength": 0.49},
        {"name": "nir", "eo:common_name": "nir", "eo:center_wavelength": 0.842},
        {"name": "VV"},
        {"name": "elevation"},
    ]
    (images,) = properties["mlm:input"]
    assert images["bands"] == list(BANDS)
    assert images["input"]["shape"] == [-1, 4, 64, 64]
    assert images["value_scaling"][1] == {"type": "z-score", "mean": 2.0, "stddev": 20.0}
    assert images["resize_type"] is None
    classes = properties["mlm:output"][0]["classification:classes"]
    assert [(c["value"], c["name"], c["description"]) for c in classes] == [
        (0, "bare-land", "bare land"),
        (1, "water", "water"),
    ]
    assert classes[1]["color_hint"] == "0072b2"
    assert properties["mlm:hyperparameters"]["method.rank"] == 4
    assert properties["license"] == "Apache-2.0" and properties["gsd"] == 10
    assert properties["mlm:pretrained_source"] == "hub: timm/resnet18.a1_in1k"
    assert item["links"][0]["href"] == "https://huggingface.co/timm/resnet18.a1_in1k"
    assert item["assets"]["report"]["href"] == "../run/report.html"
    assert "metrics" not in item["assets"]


def test_further_inputs_and_dates_are_described(tmp_path: Path) -> None:
    config = config_of(*TASKS["segment"], timesteps=3, metadata=["time", "location"])
    item = written(model_item("run", config, FILES, "2026-01-02T03:04:05+00:00"), tmp_path)
    images, time, location = item["properties"]["mlm:input"]
    assert images["input"]["shape"] == [-1, 4, 3, 64, 64]
    assert images["input"]["dim_order"][2] == "time"
    assert time["input"]["shape"] == [-1, 3, 2] and location["input"]["shape"] == [-1, 2]


def test_the_training_gives_area_dates_and_figures(tmp_path: Path) -> None:
    square = [[[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]]]
    extent = {
        "geometry": {"type": "Polygon", "coordinates": square},
        "bbox": [0, 0, 1, 1],
        "start": "2020-05-01",
        "end": "2021-06-30",
    }
    run = {
        "total_parameters": 123,
        "device": "CPU",
        "versions": {"torch": "2.12.0+cpu"},
        "data": {"extent": extent},
    }
    metrics = {"val": {"miou": 0.5}, "test": {"miou": 0.25}, "headline": {}}
    config = config_of(*TASKS["segment"])
    item = model_item("run", config, FILES, "2026-01-02T03:04:05+00:00", run, metrics)
    item = written(item, tmp_path)
    properties = item["properties"]
    assert item["bbox"] == [0, 0, 1, 1]
    assert properties["datetime"] is None
    assert properties["start_datetime"] == "2020-05-01T00:00:00Z"
    assert properties["end_datetime"] == "2021-06-30T23:59:59Z"
    assert properties["created"] == "2026-01-02T03:04:05Z"
    assert properties["mlm:total_parameters"] == 123
    assert properties["mlm:framework_version"] == "2.12.0"
    assert properties["geotune:metrics"] == {"val": {"miou": 0.5}, "test": {"miou": 0.25}}


def test_without_georeference_the_geometry_is_null(tmp_path: Path) -> None:
    item = model_item("run", config_of(*TASKS["segment"]), FILES, "2026-01-02T03:04:05+00:00")
    item = written(item, tmp_path)
    assert item["geometry"] is None and "bbox" not in item
    assert item["properties"]["datetime"] == "2026-01-02T03:04:05Z"


@pytest.mark.parametrize(
    ("source", "page", "repository"),
    [
        ("hub: org/model/file.pt", "https://huggingface.co/org/model", "org/model"),
        ("hub:org/vit@abc: random", "https://huggingface.co/org/vit", "org/vit"),
        ("backbone.safetensors: hub: timm/x, whose", "https://huggingface.co/timm/x", "timm/x"),
        ("https://example.org/w.pth", "https://example.org/w.pth", None),
        ("/home/me/weights.pt", None, None),
        ("random weights", None, None),
    ],
)
def test_the_origin_of_the_backbone(source: str, page: str | None, repository: str | None) -> None:
    config = config_of(*TASKS["segment"])
    config.base["source"] = source
    assert (base_page(config), base_repository(config)) == (page, repository)
