"""Data and models built from recipes and adapters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from geotune.adapter_config import PredictionSettings
from geotune.adapter_io import adapter_state
from geotune.backbones.create import backbone
from geotune.config import Recipe, parse_recipe
from geotune.config.data_options import QualityOptions
from geotune.config.method_options import EstOptions
from geotune.datasets.registry import get_dataset_info
from geotune.factory.build_data import FileInfo, build_data
from geotune.factory.build_model import (
    BuiltModel,
    build_training,
    load_adapter,
    resolve_recipe,
)
from geotune.factory.prediction_settings import prediction_settings
from geotune.factory.save_model import save_model
from geotune.types import BandStatistics
from helpers.errors import raises

STATISTICS = BandStatistics(("red", "green", "nir"), (500.0,) * 3, (100.0,) * 3, 1000)


@pytest.mark.parametrize("method", ["full", "frozen", "lora", "est"])
def test_weights_depend_on_the_seed_only(
    tiny_values: Callable[..., dict[str, Any]], method: str
) -> None:
    def state(seed: int) -> dict[str, torch.Tensor]:
        values = tiny_values({"method": {"kind": method}, "train.seed": seed})
        torch.rand(3)  # earlier draws must not matter
        return build_training(parse_recipe(values), STATISTICS).model.state_dict()

    one, two, other = state(0), state(0), state(1)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("decoder", "task", "width"),
    [
        ({"kind": "global_pool"}, {"kind": "classify", "classes": ["land", "water"]}, 0),
        ({"kind": "linear", "levels": "last"}, {"kind": "segment", "classes": ["a", "b"]}, 0),
        ({"kind": "linear"}, {"kind": "segment", "classes": ["a", "b"]}, 24),
        ({"kind": "unet"}, {"kind": "segment", "classes": ["a", "b"]}, 24),
    ],
    ids=["global_pool", "last", "all", "unet"],
)
def test_a_stem_that_the_decoder_does_not_read_is_left_out(
    tiny_values: Callable[..., dict[str, Any]], decoder: Any, task: Any, width: int
) -> None:
    values = tiny_values({"decoder": decoder, "task": task, "method.stem_width": 24})
    if task["kind"] == "classify":
        values["data"] = {"kind": "images", "images": "images", "split": {"kind": "random"}}
    files = FileInfo(STATISTICS.bands, None, {}, 32)
    recipe, _ = resolve_recipe(parse_recipe(values), files)
    assert recipe.method.stem_width == width
    built = build_training(recipe, STATISTICS)
    model, images = built.model, torch.rand(2, 3, 32, 32)
    model(images).sum().backward()
    unused = {
        name
        for name, value in model.named_parameters()
        if value.requires_grad and value.grad is None and "stem" in name
    }
    assert not unused and any("stem" in name for name in model.state_dict()) == (width > 0)


@pytest.mark.parametrize("asked", [None, "side", "sum"])
@pytest.mark.parametrize("level", ["image", "pixel"])
def test_est_hands_full_width_maps_to_a_pooling_decoder(
    tiny_values: Callable[..., dict[str, Any]], level: str, asked: str | None
) -> None:
    values = tiny_values({"method.output": asked} if asked else None)
    if level == "image":
        values["decoder"] = {"kind": "global_pool"}
        values["task"] = {"kind": "classify", "classes": ["land", "water"]}
        values["data"] = {"kind": "images", "images": "images", "split": {"kind": "random"}}
    files = FileInfo(STATISTICS.bands, None, {}, 32)
    recipe, _ = resolve_recipe(parse_recipe(values), files)
    output = asked or {"image": "sum", "pixel": "side"}[level]
    assert isinstance(recipe.method, EstOptions) and recipe.method.output == output
    backbone, *_ = (encoder := build_training(recipe, STATISTICS).model.encoder).backbone.taps
    assert all((tap.channels == backbone.channels) == (output == "sum") for tap in encoder.taps)


def test_random_weights_are_noted(tiny_values: Callable[..., dict[str, Any]]) -> None:
    built = build_training(parse_recipe(tiny_values()), STATISTICS)
    assert "timm/test_vit has random weights" in built.notes[0]


def test_scenes_with_another_number_of_dates_are_an_error(
    tiny_values: Callable[..., dict[str, Any]],
) -> None:
    values = tiny_values({"backbone.timesteps": 3})
    with raises("dates-inconsistent", key="backbone.timesteps", mentions=["a.tif"]):
        build_data(parse_recipe(values))


def test_resolution_and_quality_options_change_the_data(
    tiny_values: Callable[..., dict[str, Any]], tiny_scenes: Path
) -> None:
    """With the water labels as a quality mask, no water is left."""
    quality = {"pattern": f"{tiny_scenes}/labels/{{stem}}.tif", "values": [1]}
    data = build_data(parse_recipe(tiny_values({"data.resolution": "20 m"})))
    assert data.train.scenes[0].shape == (32, 32) and data.gsd_m == pytest.approx(20)
    data = build_data(parse_recipe(tiny_values({"data.quality": quality})))
    assert data.class_counts["train"][0] and not data.class_counts["train"][1]
    assert data.statistics.pixels < 2 * 64 * 64


def test_the_adapter_keeps_what_a_prediction_depends_on(
    tiny_values: Callable[..., dict[str, Any]],
) -> None:
    changes = {
        "data.resolution": "20 m",
        "data.bands": ["red", "green", "nir"],
        "data.nodata": -1,
        "data.quality": {"pattern": "home/me/{stem}.tif", "bits": [3], "band": 2},
    }
    settings = prediction_settings(
        parse_recipe(tiny_values(changes)), {"threshold": {"water": 0.3}}
    )
    assert settings == PredictionSettings(
        window=32,
        resolution_m=20,
        bands=["red", "green", "nir"],
        nodata=-1,
        quality=QualityOptions(pattern="", bits=[3], band=2),
        score_thresholds={"water": 0.3},
    )
    named = {"kind": "named", "name": "burn_scars", "root": "."}
    task = {"kind": "segment", "classes": list(get_dataset_info("burn_scars").classes)}
    published = parse_recipe(
        tiny_values({"data": named, "task": task, "backbone.bands": ["B02", "B8A"]})
    )
    settings = prediction_settings(published, {})
    assert settings.nodata == -9999 and settings.bands == list(get_dataset_info("burn_scars").bands)


def test_splits_samples_and_bands_follow_the_recipe(
    tiny_values: Callable[..., dict[str, Any]],
) -> None:
    data = build_data(parse_recipe(tiny_values({"data.samples": 5})))
    assert data.splits == {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
    assert len(data.train) == 5 and len(data.val) == 4
    assert data.statistics.bands == ("red", "green", "nir")
    values = tiny_values({"backbone.bands": ["nir", "red"]})
    assert build_data(parse_recipe(values)).statistics.bands == ("nir", "red")


def test_wrong_number_of_bands_is_an_error(tiny_values: Callable[..., dict[str, Any]]) -> None:
    assert build_data(parse_recipe(tiny_values({"backbone.bands": 3}))).splits["val"] == ["c"]
    with raises("bands-inconsistent", key="backbone.bands", mentions=["4", "red, green"]):
        build_data(parse_recipe(tiny_values({"backbone.bands": 4})))


def test_synthetic_scenes_need_their_classes(
    tiny_values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    values = tiny_values({"backbone.bands": ["B02", "B08"]})
    values["data"] = {
        "kind": "synthetic",
        "folder": str(tmp_path / "made"),
        "count": 3,
        "size": 64,
        "window": 32,
        "split": {"kind": "random", "val": 0.3, "test": 0.3},
    }
    with raises("class-unknown", key="task.classes", mentions=["water"]):
        build_data(parse_recipe(values))
    assert not (tmp_path / "made").exists()
    from geotune.data.synthetic.synthetic_scenes import CLASSES

    values["task"]["classes"] = list(CLASSES)
    data = build_data(parse_recipe(values))
    assert sorted(len(names) for names in data.splits.values()) == [1, 1, 1]
    assert data.statistics.bands == ("B02", "B08")


# ---------------------------------------------------------------- adapters
@pytest.fixture
def saved(tiny_values: Callable[..., dict[str, Any]], tmp_path: Path) -> tuple[BuiltModel, Path]:
    """A model with changed trained tensors, and the folder of its adapter."""
    recipe: Recipe = parse_recipe(tiny_values())
    built = build_training(recipe, STATISTICS)
    generator = torch.Generator().manual_seed(1)
    for tensor in adapter_state(built.model).values():
        if tensor.is_floating_point():
            tensor.add_(torch.rand(tensor.shape, generator=generator), alpha=0.1)
    built.model.eval()
    save_model(tmp_path / "adapter", built, recipe)
    return built, tmp_path / "adapter"


def test_loaded_adapter_restores_the_outputs(saved: tuple[BuiltModel, Path]) -> None:
    built, folder = saved
    loaded = load_adapter(folder)
    images = 500 + 100 * torch.randn(2, 3, 40, 56)
    images[0, :, :5] = torch.nan
    with torch.no_grad():
        assert torch.equal(built.model(images), loaded.model(images))
    assert loaded.normalization == built.normalization
    assert loaded.task.classes == ("land", "water")
    assert not loaded.model.training


def test_another_base_model_is_rejected(saved: tuple[BuiltModel, Path], tmp_path: Path) -> None:
    _, folder = saved
    import safetensors.torch

    base = backbone("timm/test_vit", bands=3, pretrained=False)
    state = {name: tensor + 1 for name, tensor in base.model.state_dict().items()}
    safetensors.torch.save_file(state, tmp_path / "other.safetensors")
    with raises("adapter-base", file=folder, mentions=["timm/test_vit", "other.safetensors"]):
        load_adapter(folder, tmp_path / "other.safetensors")


@pytest.mark.parametrize("damage", ["hash", "missing", "card"])
def test_damaged_adapter_is_an_error(
    saved: tuple[BuiltModel, Path], tmp_path: Path, damage: str
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(saved[1], folder)
    code = {"hash": "adapter-mismatch", "missing": "adapter-invalid", "card": "adapter-missing"}
    if damage == "hash":
        data = bytearray((folder / "adapter.safetensors").read_bytes())
        data[-1] ^= 1
        (folder / "adapter.safetensors").write_bytes(data)
    else:
        (folder / f"adapter.{'json' if damage == 'card' else 'safetensors'}").unlink()
    with raises(code[damage]):
        load_adapter(folder)


def test_adapter_with_old_option_names_is_rejected_with_the_new_ones(
    saved: tuple[BuiltModel, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "old"
    shutil.copytree(saved[1], folder)
    text = (folder / "adapter.json").read_text()
    (folder / "adapter.json").write_text(text.replace('"stem_width"', '"stem"'))
    with raises("recipe-key-renamed", key="method.stem", mentions=["method.stem_width"]):
        load_adapter(folder)


def test_moved_weights_name_the_option_that_gives_their_path(
    tiny_values: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    weights = tmp_path / "weights.pt"
    torch.save(
        backbone(
            "timm/test_vit", bands=["red", "green", "nir"], pretrained=False
        ).model.state_dict(),
        weights,
    )
    changes = {"backbone.weights": str(weights), "backbone.pretrained": True}
    recipe = parse_recipe(tiny_values(changes))
    built = build_training(recipe, STATISTICS)
    save_model(tmp_path / "adapter", built, recipe)
    moved = weights.rename(tmp_path / "moved.pt")
    for given, mentions in (
        (None, [weights, "--weights"]),
        (weights, [weights, "check --weights"]),
    ):
        with raises("file-missing", key="backbone.weights", file=weights, mentions=mentions):
            load_adapter(tmp_path / "adapter", given)
    assert load_adapter(tmp_path / "adapter", moved).backbone.source == str(moved)


@pytest.mark.parametrize(
    ("method", "key"),
    [
        ({"kind": "rein", "rank": 4}, "num_tokens"),
        ({"kind": "vpt"}, "num_prompts"),
        ({"kind": "molora", "rank": 2}, "experts"),
        ({"kind": "sidetune"}, "width"),
    ],
)
def test_an_adapter_cannot_ask_for_any_amount_of_memory(
    tiny_values: Callable[..., dict[str, Any]], tmp_path: Path, method: dict[str, Any], key: str
) -> None:
    """Before anything of that size is allocated; these would need more than a terabyte."""
    recipe = parse_recipe(tiny_values({"method": {**method, "stem_width": 0}}))
    built = build_training(recipe, STATISTICS)
    folder = tmp_path / "adapter"
    folder.mkdir()
    save_model(folder, built, recipe, PredictionSettings(window=32))
    assert load_adapter(folder)
    config = folder / "adapter.json"
    values = json.loads(config.read_text())
    values["method"][key] = 10**11
    config.write_text(json.dumps(values))
    with raises("adapter-mismatch", file=folder, mentions=["describes a model"]):
        load_adapter(folder)
