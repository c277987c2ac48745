"""`geotune list` shows all registered components."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import geotune
from geotune.datasets.registry import DATASETS
from geotune.info import backbone_info, describe, list_components
from geotune.registry import BACKBONE_PROVIDERS, DECODERS, METHODS, TASKS
from helpers.errors import raises

REGISTRIES = {"methods": METHODS, "decoders": DECODERS, "tasks": TASKS}


@pytest.mark.parametrize("category", ["methods", "decoders", "tasks", "datasets"])
def test_rows_have_a_description_and_the_options(category: Any) -> None:
    rows = list_components(category)
    columns = ["name", "description", "options"]
    if category == "methods":
        columns.insert(2, "backbones")
    data_kinds = ["scenes", "chips", "synthetic", "images", "named"]
    expected = REGISTRIES.get(category, [*data_kinds, *DATASETS])
    assert [row["name"] for row in rows] == list(expected)
    assert all(list(row) == columns for row in rows)
    assert all(row["description"] for row in rows)
    options = {row["name"]: row["options"].split(", ") for row in rows}
    if category == "methods":
        assert {"rank", "alpha", "stem_width"} <= set(options["lora"])
    assert all("kind" not in keys for keys in options.values())


def test_only_methods_that_need_no_blocks_fit_every_backbone() -> None:
    """`timm/vgg11` has taps, but no accessible blocks and no normalisation layers."""
    backbone = geotune.backbone("timm/vgg11", bands=3, pretrained=False)
    for row in list_components("methods"):
        method = METHODS[row["name"]].load()()
        assert row["backbones"] != "not stated"
        if row["backbones"].startswith("every backbone"):
            method.attach(copy.deepcopy(backbone))
        elif "block" in row["backbones"] and row["name"] != "peft":
            with raises("method-unsupported"):
                method.attach(copy.deepcopy(backbone))


def test_backbones_are_listed_by_full_name() -> None:
    rows = list_components("backbones")
    names = {row["name"] for row in rows}
    assert {"timm/resnet18", "timm/vit_small_patch16_224", "rslearn/galileo_nano"} <= names
    assert "timm/vit_large_patch16_dinov3.sat493m" in names
    assert {name.partition("/")[0] for name in names} == set(BACKBONE_PROVIDERS) - {"python"}
    assert all(list(row) == ["name", "parameters", "bands", "requires"] for row in rows)


def test_model_index_matches_the_built_backbone() -> None:
    name = "rslearn/galileo_nano"
    pytest.importorskip("rslearn")
    info = backbone_info(name)
    assert info is not None
    backbone = geotune.backbone(name, bands=info["bands"], pretrained=False)
    assert info["parameters"] == sum(p.numel() for p in backbone.parameters())
    assert sum(stage["blocks"] for stage in info["taps"]) == len(backbone.taps)
    assert backbone.normalization is not None
    assert info["normalization"]["scale"] == pytest.approx(backbone.normalization.scale)
    assert set(info["methods"]) == set(METHODS)
    values, pairs = describe("backbones", name) or ({}, [])
    assert values == {"name": name, **info}
    text = dict(pairs)
    assert "MIT" in text["licence"] and "est" in text["methods"] and "2502.09356" in text["paper"]


def test_model_index_has_every_described_backbone() -> None:
    names = {row["name"] for row in list_components("backbones")}
    for provider, component in BACKBONE_PROVIDERS.items():
        models = getattr(component.module(), "MODELS", {})
        for model, described in models.items():
            info = backbone_info(f"{provider}/{model}")
            assert info is not None, f"run scripts/build_model_index.py: {provider}/{model}"
            assert info["licence"] == described.licence and info["paper"] == described.paper
            assert f"{provider}/{model}" in names
    assert backbone_info("timm/nothing") is None


def test_published_data_sets_are_listed_with_licence_bands_classes_and_source() -> None:
    rows = {row["name"]: row["options"] for row in list_components("datasets")}
    assert rows["potsdam"].startswith("task.kind=segment; 4 bands; 6 classes; ")
    for name in DATASETS:
        values, pairs = describe("datasets", name) or ({}, [])
        text = dict(pairs)
        assert values["licence"] == text["licence"] and values["source"] == text["source"]
        assert all(pattern in text["files"] for pattern in values["images"])
    assert describe("datasets", "scenes") is None
    assert describe("backbones", "nothing") is None
