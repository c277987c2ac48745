"""`geotune fit` names the faulty key or file of bad input and writes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import yaml
from rasterio.transform import from_origin

from geotune.utils.atomic import write_atomically

Command = Callable[..., tuple[int, str, str]]
Values = dict[str, Any]
BOX = [[500_100, 4_999_600], [500_300, 4_999_600], [500_300, 4_999_900], [500_100, 4_999_600]]


class Case:
    """A copy of the tiny scenes and a recipe that uses them, both to be corrupted."""

    def __init__(self, folder: Path, values: Values) -> None:
        self.folder = folder
        self.values = values

    def scene(self, name: str) -> Path:
        return self.folder / "scenes" / f"{name}.tif"

    def label(self, name: str) -> Path:
        return self.folder / "labels" / f"{name}.tif"

    def rewrite(
        self, path: Path, change: Callable[[Any], Any] = lambda array: array, **profile: Any
    ) -> None:
        """Write a raster again with other values or another profile."""
        with rasterio.open(path) as file:
            array, old, names = file.read(), file.profile, file.descriptions
        array = change(array)
        shape = {"count": array.shape[0], "height": array.shape[1], "width": array.shape[2]}
        path.unlink()
        with rasterio.open(path, "w", **{**old, **shape, **profile}) as file:
            file.write(array)
            file.descriptions = names[: array.shape[0]]

    def polygons(self, crs: str, ring: list[list[float]] = BOX) -> None:
        """Replace the raster labels by polygons of class water."""
        for name in "abcd":
            polygon = {"type": "Polygon", "coordinates": [ring]}
            feature = {"type": "Feature", "properties": {"class": "water"}, "geometry": polygon}
            members = {"type": "name", "properties": {"name": f"urn:ogc:def:crs:{crs}"}}
            collection = {"type": "FeatureCollection", "crs": members, "features": [feature]}
            path = self.folder / "labels" / f"{name}.geojson"
            path.write_text(json.dumps(collection))
        data = self.values["data"]
        data["labels"] = data["labels"].replace(".tif", ".geojson")
        data["class_field"], data["unlabelled"] = "class", "ignore"


def missing_raster(case: Case) -> list[str]:
    case.values["data"]["scenes"] = [str(case.scene(name)) for name in "abcde"]
    return [str(case.scene("e")), "(scenes-missing)"]


def pattern_without_files(case: Case) -> list[str]:
    case.values["data"]["scenes"] = str(case.folder / "images" / "*.tif")
    return [str(case.folder / "images" / "*.tif"), "data.scenes"]


def missing_label(case: Case) -> list[str]:
    case.label("b").unlink()
    return [str(case.label("b")), "(labels-missing)"]


def truncated_raster(case: Case) -> list[str]:
    path = case.scene("b")
    path.write_bytes(path.read_bytes()[:20_000])
    return [str(path)]


def text_instead_of_a_raster(case: Case) -> list[str]:
    case.scene("b").write_text("not a raster")
    return [str(case.scene("b"))]


def truncated_label(case: Case) -> list[str]:
    path = case.label("c")
    path.write_bytes(path.read_bytes()[:2_000])
    return [str(path)]


def mask_of_another_size(case: Case) -> list[str]:
    # without georeference it cannot be resampled to the grid of the scene
    case.rewrite(case.label("a"), lambda a: a[:, :60], crs=None, transform=None)
    return [str(case.label("a")), "60x64", str(case.scene("a")), "64x64"]


def chip_and_mask_of_another_size(case: Case) -> list[str]:
    case.rewrite(case.label("a"), lambda a: a[:, :60])
    data = case.values["data"]
    data["kind"] = "chips"
    del data["scenes"], data["labels"]
    data["images"], data["masks"] = str(case.folder / "scenes"), str(case.folder / "labels")
    return [str(case.label("a")), "60x64", "64x64"]


def scene_without_crs(case: Case) -> list[str]:
    case.rewrite(case.scene("a"), crs=None)
    return [str(case.scene("a")), "has no CRS", str(case.label("a"))]


def scene_without_crs_under_polygons(case: Case) -> list[str]:
    case.polygons("EPSG::32633")
    case.rewrite(case.scene("a"), crs=None, transform=None)
    return [str(case.scene("a")), "CRS", "a.geojson"]


def labels_outside_the_scene(case: Case) -> list[str]:
    case.polygons("EPSG::32633", [[x + 1e6, y] for x, y in BOX])
    return ["a.geojson", "none of its labels lies in", str(case.scene("a"))]


def raster_labels_outside_the_scene(case: Case) -> list[str]:
    for name in "abcd":
        case.rewrite(case.label(name), transform=from_origin(900_000, 5_000_000, 10, 10))
    return [str(case.label("a")), "none of its labels lies in", str(case.scene("a"))]


def unknown_band(case: Case) -> list[str]:
    case.values["backbone"]["bands"] = ["red", "grean"]
    return [str(case.scene("a")), "has no band grean", "did you mean green?"]


def too_few_band_names(case: Case) -> list[str]:
    case.values["data"]["bands"] = ["red", "green"]
    return [str(case.scene("a")), "has 3 bands", "data.bands names 2"]


def missing_band_in_one_file(case: Case) -> list[str]:
    case.rewrite(case.scene("d"), lambda a: a[:2])
    return [str(case.scene("d")), "has no band nir"]


def unknown_class_value(case: Case) -> list[str]:
    def set_seven(array: Any) -> Any:
        array[0, :2, :3] = 7
        return array

    case.rewrite(case.label("b"), set_seven)
    return [str(case.label("b")), "(class-unknown)", "7 (6 pixels)", "data.class_values"]


def unknown_class_in_vectors(case: Case) -> list[str]:
    case.polygons("EPSG::32633")
    path = case.folder / "labels" / "a.geojson"
    path.write_text(path.read_text().replace("water", "lava"))
    return [str(path), "lava"]


def empty_split(case: Case) -> list[str]:
    case.values["data"]["split"]["val"] = []
    return ["data.split", "(split-empty)", "a, b, c, d"]


def split_without_labels(case: Case) -> list[str]:
    case.rewrite(case.label("c"), lambda a: np.full_like(a, 255))
    return ["data.split.val", "labelled pixel", "(c)"]


def scene_in_two_splits(case: Case) -> list[str]:
    case.values["data"]["split"]["test"] = ["a"]
    return ["data.split", "a", "train", "test"]


def unknown_scene_in_a_split(case: Case) -> list[str]:
    case.values["data"]["split"]["val"] = ["sea"]
    return ["data.split.val", "sea"]


def nan_pixels(case: Case) -> list[str]:
    def corrupt(array: Any) -> Any:
        array[1, 5, 9] = np.nan
        return array

    case.rewrite(case.scene("b"), corrupt)
    return [str(case.scene("b")), "band green has 1 NaN or infinite", "row 5, column 9"]


def infinite_pixels(case: Case) -> list[str]:
    def corrupt(array: Any) -> Any:
        array[2, 60:, 0] = np.inf
        return array

    case.rewrite(case.scene("d"), corrupt, nodata=-1)
    return [str(case.scene("d")), "band nir has 4 NaN or infinite", "nodata is -1"]


def no_data_anywhere(case: Case) -> list[str]:
    for name in "ab":
        case.rewrite(case.scene(name), lambda a: np.full_like(a, -1), nodata=-1)
    return ["data.split.train", "a, b"]


def batch_size_zero(case: Case) -> list[str]:
    case.values["train"]["batch_size"] = 0
    return ["train.batch_size: found 0", "greater than 0"]


def window_zero(case: Case) -> list[str]:
    case.values["data"]["window"] = 0
    return ["data.window: found 0", "greater than 0"]


def batch_not_divisible_by_accumulate_steps(case: Case) -> list[str]:
    case.values["train"]["accumulate_steps"] = 3
    return ["train.batch_size: found 4", "train.accumulate_steps (3)"]


def run_of_another_recipe(case: Case) -> list[str]:
    run = Path(case.values["train"]["run"])
    other = {**case.values, "train": {**case.values["train"], "seed": 3}}
    write_atomically(run / "recipe.yaml", yaml.safe_dump(other).encode())
    write_atomically(run / "checkpoint" / "last.ckpt", b"of a completed epoch")
    return [str(run), "another recipe", "train.seed: 3 -> 0", "--overwrite"]


def folder_that_is_not_a_run(case: Case) -> list[str]:
    run = Path(case.values["train"]["run"])
    write_atomically(run / "notes.txt", b"mine")
    return [str(run), "not a run of geotune", "train.run"]


def unknown_key(case: Case) -> list[str]:
    case.values["train"]["epoch"] = 5
    return ["train.epoch: unknown key", "did you mean train.epochs?"]


def unknown_kind(case: Case) -> list[str]:
    case.values["method"] = {"kind": "lorra"}
    return ["method.kind: found 'lorra'", "did you mean lora?"]


def unknown_provider(case: Case) -> list[str]:
    case.values["backbone"]["name"] = "tim/test_vit"
    return ["backbone.name 'tim/test_vit'", "did you mean timm/test_vit?"]


def unknown_backbone(case: Case) -> list[str]:
    case.values["backbone"]["name"] = "timm/test_vitt"
    return ["backbone.name timm/test_vitt", "timm/test_vit"]


def missing_weights(case: Case) -> list[str]:
    case.values["backbone"] |= {"pretrained": True, "weights": str(case.folder / "vit.safetensors")}
    return [str(case.folder / "vit.safetensors"), "backbone.weights"]


def weights_of_another_model(case: Case) -> list[str]:
    import timm
    from safetensors.torch import save_file

    path = case.folder / "resnet.safetensors"
    save_file(timm.create_model("test_resnet").state_dict(), path)
    case.values["backbone"] |= {"pretrained": True, "weights": str(path)}
    return [str(path), "timm/test_vit", "(weights-mismatch)"]


def damaged_weights(case: Case) -> list[str]:
    path = case.folder / "vit.safetensors"
    path.write_bytes(b"not weights")
    case.values["backbone"] |= {"pretrained": True, "weights": str(path)}
    return [str(path), "(file-unreadable)"]


def unknown_monitor(case: Case) -> list[str]:
    case.values["train"]["monitor"] = "iou/sea"
    return ["train.monitor: found 'iou/sea'", "iou/water"]


def constant_band(case: Case) -> list[str]:
    def set_constant(array: Any) -> Any:
        array[2] = 3
        return array

    for name in "ab":
        case.rewrite(case.scene(name), set_constant)
    return ["band nir", "constant", "backbone.bands"]


CASES = [
    missing_raster,
    pattern_without_files,
    missing_label,
    truncated_raster,
    text_instead_of_a_raster,
    truncated_label,
    mask_of_another_size,
    chip_and_mask_of_another_size,
    scene_without_crs,
    scene_without_crs_under_polygons,
    labels_outside_the_scene,
    raster_labels_outside_the_scene,
    unknown_band,
    too_few_band_names,
    missing_band_in_one_file,
    unknown_class_value,
    unknown_class_in_vectors,
    empty_split,
    split_without_labels,
    scene_in_two_splits,
    unknown_scene_in_a_split,
    nan_pixels,
    infinite_pixels,
    no_data_anywhere,
    batch_size_zero,
    window_zero,
    batch_not_divisible_by_accumulate_steps,
    run_of_another_recipe,
    folder_that_is_not_a_run,
    unknown_key,
    unknown_kind,
    unknown_provider,
    unknown_backbone,
    missing_weights,
    weights_of_another_model,
    damaged_weights,
    unknown_monitor,
    constant_band,
]


@pytest.mark.parametrize("corrupt", CASES, ids=lambda case: case.__name__)
def test_bad_input_is_named_and_nothing_is_written(
    geotune: Command,
    tmp_path: Path,
    write_tiny_scenes: Callable[[Path], Path],
    tiny_values: Callable[..., Values],
    corrupt: Callable[[Case], list[str]],
) -> None:
    run = tmp_path / "run"
    folder = write_tiny_scenes(tmp_path / "data")
    case = Case(folder, tiny_values({"train.run": str(run)}, data=folder))
    expected = corrupt(case)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(case.values))
    before = sorted(run.rglob("*"))

    code, out, err = geotune("fit", recipe)

    assert code == 1, err
    assert out == ""
    message = err[err.index("error:") :]
    for text in expected:
        assert text in message
    assert "Traceback" not in err
    assert sorted(run.rglob("*")) == before
    created = {path.name for path in tmp_path.iterdir()} - {"data", "recipe.yaml"}
    assert created <= {"run"} and (run.exists() == bool(before))


def test_the_uncorrupted_recipe_trains(
    geotune: Command,
    tmp_path: Path,
    write_tiny_scenes: Callable[[Path], Path],
    tiny_values: Callable[..., Values],
) -> None:
    """With the vector labels of the cases; other tests train on the rasters."""
    folder = write_tiny_scenes(tmp_path / "data")
    changes = {"train.run": str(tmp_path / "run"), "train.epochs": 1}
    case = Case(folder, tiny_values(changes, data=folder))
    case.polygons("EPSG::32633")
    # the polygon does not overlap b, c and d
    split = {"kind": "list", "train": ["a"], "val": ["a2"], "allow_overlap": True}
    case.values["data"]["split"] = split
    for kind, suffix in (("scenes", "tif"), ("labels", "geojson")):
        first = folder / kind / f"a.{suffix}"
        (folder / kind / f"a2.{suffix}").write_bytes(first.read_bytes())
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(case.values))
    code, _, err = geotune("fit", recipe)
    assert code == 0, err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "cannot be read"),
        ("backbone: [", "(recipe-unreadable)"),
        ("just words", "expected sections such as backbone:"),
        ("train: {epochs: 1}\ntrain: {epochs: 2}", "train"),
        ("", "expected sections such as backbone:"),
    ],
)
def test_unreadable_recipes_are_rejected(
    geotune: Command, tmp_path: Path, text: str | None, expected: str
) -> None:
    recipe = tmp_path / "recipe.yaml"
    if text is not None:
        recipe.write_text(text)
    code, _, err = geotune("fit", recipe)
    assert code == 1
    assert str(recipe) in err and expected in err and "Traceback" not in err


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("train.epochs", "'train.epochs': expected key=value"),
        ("train.epochs=many", "train.epochs: found 'many'"),
        ("train.epochs.more=1", "train.epochs is a value"),
        ("data.windw=3", "data.windw: unknown key; did you mean data.window?"),
    ],
)
def test_invalid_overrides_are_rejected(
    geotune: Command, tiny_recipe: Callable[..., Path], override: str, expected: str
) -> None:
    code, _, err = geotune("fit", tiny_recipe(), override)
    assert code == 1
    assert expected in err and "Traceback" not in err
