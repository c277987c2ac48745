"""What `geotune list` shows is what there is."""

from __future__ import annotations

from typing import Any

import pytest

import geotune
from geotune.datasets.registry import DATASETS as NAMED
from geotune.info import backbone_facts, backbone_rows, describe, list_components
from geotune.registry import BACKBONE_PROVIDERS, DECODERS, METHODS, TASKS

REGISTRIES = {"methods": METHODS, "decoders": DECODERS, "tasks": TASKS}


@pytest.mark.parametrize("what", ["methods", "decoders", "tasks", "datasets"])
def test_rows_say_what_each_is_and_which_keys_it_takes(what: Any) -> None:
    rows = list_components(what)
    columns = ["name", "is", "fits", "options"] if what == "methods" else ["name", "is", "options"]
    data_kinds = ["scenes", "chips", "synthetic", "images", "named"]
    assert [row["name"] for row in rows] == list(REGISTRIES.get(what, [*data_kinds, *NAMED]))
    assert all(list(row) == columns for row in rows)
    assert all(row["is"] for row in rows)
    options = {row["name"]: row["options"].split(", ") for row in rows}
    if what == "methods":
        assert {"rank", "alpha", "stem_width"} <= set(options["lora"])
    assert all("kind" not in keys for keys in options.values())


def test_backbones_are_names_that_can_be_asked_for() -> None:
    rows = list_components("backbones")
    names = {row["name"] for row in rows}
    assert {"timm/resnet18", "timm/vit_small_patch16_224", "rslearn/galileo_nano"} <= names
    assert "timm/vit_large_patch16_dinov3.sat493m" in names
    assert {name.partition("/")[0] for name in names} == set(BACKBONE_PROVIDERS) - {"python"}
    assert all(list(row) == ["name", "parameters", "bands", "needs"] for row in rows)


def test_what_is_known_of_a_backbone_is_what_is_built() -> None:
    name = "rslearn/galileo_nano"
    pytest.importorskip("rslearn")
    known = backbone_facts(name)
    assert known is not None
    backbone = geotune.backbone(name, bands=known["bands"], pretrained=False)
    assert known["parameters"] == sum(p.numel() for p in backbone.parameters())
    assert sum(stage["blocks"] for stage in known["taps"]) == len(backbone.taps)
    assert backbone.normalization is not None
    assert known["normalization"]["scale"] == pytest.approx(backbone.normalization.scale)
    assert set(known["methods"]) == set(METHODS)
    rows = dict(backbone_rows(name, known))
    assert "MIT" in rows["licence"] and "est" in rows["methods"] and "2502.09356" in rows["paper"]


def test_what_is_written_down_is_there_for_every_described_backbone() -> None:
    named = {row["name"] for row in list_components("backbones")}
    for provider, component in BACKBONE_PROVIDERS.items():
        models = getattr(component.module(), "MODELS", {})
        for model, facts in models.items():
            known = backbone_facts(f"{provider}/{model}")
            assert known is not None, f"run scripts/build_model_index.py: {provider}/{model}"
            assert known["licence"] == facts.licence and known["paper"] == facts.paper
            assert f"{provider}/{model}" in named
    assert backbone_facts("timm/nothing") is None


def test_named_data_sets_are_shown_with_licence_bands_classes_and_source() -> None:
    rows = {row["name"]: row["options"] for row in list_components("datasets")}
    assert rows["potsdam"].startswith("task.kind=segment; 4 bands; 6 classes; ")
    for name in NAMED:
        facts, pairs = describe("datasets", name) or ({}, [])
        said = dict(pairs)
        assert facts["licence"] == said["licence"] and facts["source"] == said["from"]
        assert all(pattern in said["files"] for pattern in facts["images"])
    assert describe("datasets", "scenes") is None
    assert describe("backbones", "nothing") is None
