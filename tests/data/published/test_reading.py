"""Regions, splits and label values of published data sets, and errors of damaged files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

from geotune.config import Recipe
from geotune.config.schema import check_published
from geotune.config.task_options import DetectOptions
from geotune.data.raster.windows import Window
from geotune.factory.build_data import build_data
from helpers.errors import raises
from helpers.published_datasets import BLOCK, SIDE, write

WriteCopy = Callable[[str], Path]
MakeRecipe = Callable[..., Recipe]


def read_labels(scene: Any) -> Any:
    return scene.labels.read(Window(0, 0, *scene.shape))


def test_bolivia_is_only_in_the_test_split(copy_of: WriteCopy, recipe_on: MakeRecipe) -> None:
    data = build_data(recipe_on("sen1floods11", copy_of("sen1floods11")))
    assert data.test is not None
    regions = {scene.group for scene in data.test.scenes}
    assert "Bolivia" in regions and len(regions) == 2
    assert "Bolivia" not in {scene.group for scene in data.train.scenes}
    mask = read_labels(data.train.scenes[0]).mask
    assert (mask[:3] == 255).all() and (mask[BLOCK, BLOCK] == 1).all() and mask[5, 5] == 0


@pytest.mark.parametrize(
    ("name", "year"),
    [
        ("sen1floods11", 2018),
        ("burn_scars", 2018),
        ("reben_7k", 2017),
        ("m_cashew_plantation", 2019),
    ],
)
def test_images_have_dates_for_models_that_take_them(
    copy_of: WriteCopy, recipe_on: MakeRecipe, name: str, year: int
) -> None:
    scenes = build_data(recipe_on(name, copy_of(name))).train.scenes
    years = {scene.raster.acquired and scene.raster.acquired.year for scene in scenes}
    assert None not in years and year in years


def test_austria_and_ireland_are_only_in_the_test_split(
    copy_of: WriteCopy, recipe_on: MakeRecipe
) -> None:
    data = build_data(recipe_on("reben_7k", copy_of("reben_7k")))
    assert data.test is not None
    assert {s.group for s in data.test.scenes} == {"Austria", "Ireland", "elsewhere"}
    assert {s.group for s in data.train.scenes} == {"elsewhere"}
    classes = list(data.train.scenes[0].labels.classes)
    mask = read_labels(data.train.scenes[0]).mask
    assert mask.shape == (120, 120) and (mask[:4] == 255).all()
    assert (mask[4:8] == classes.index("Urban fabric")).all()
    assert mask[60, 60] == classes.index("Coniferous forest")


def test_bands_of_20_and_60_metres_are_resampled_to_10_metres(
    copy_of: WriteCopy, recipe_on: MakeRecipe
) -> None:
    scene = build_data(recipe_on("reben_7k", copy_of("reben_7k"))).train.scenes[0]
    assert scene.raster.bands == ("B09", "B11", "B12") and scene.raster.shape == (120, 120)
    pixels = scene.raster.read(Window(7, 5, 50, 60))
    for values, factor, path in zip(pixels, (6, 2, 2), scene.raster.paths, strict=True):
        with rasterio.open(path) as file:
            coarse = file.read(1)
        rows, cols = np.mgrid[7:57, 5:65]
        assert (values == coarse[rows // factor, cols // factor]).all()


def test_mask_colours_are_mapped_to_classes(copy_of: WriteCopy, recipe_on: MakeRecipe) -> None:
    data = build_data(recipe_on("vaihingen", copy_of("vaihingen")))
    labels = data.train.scenes[0].labels
    mask = read_labels(data.train.scenes[0]).mask
    assert labels.classes[int(mask[20, 20])] == "building"
    assert labels.classes[int(mask[0, 0])] == "low vegetation"
    assert "7_10" not in [name for scenes in data.splits.values() for name in scenes]


def test_an_unknown_mask_colour_is_reported(copy_of: WriteCopy, recipe_on: MakeRecipe) -> None:
    root = copy_of("vaihingen")
    mask = np.zeros((3, SIDE, SIDE), "uint8")
    mask[0] = 250
    write(root / "top_mosaic_09cm_area1.tif", mask)
    with raises("class-unknown", mentions=["area1.tif", "0xFA0000 (2304 pixels"]):
        build_data(recipe_on("vaihingen", root))
    build_data(recipe_on("vaihingen", root, ignore_values=[0xFA0000]))


def test_hdf5_layers_are_read_as_bands(copy_of: WriteCopy, recipe_on: MakeRecipe) -> None:
    root = copy_of("m_cashew_plantation")
    data = build_data(recipe_on("m_cashew_plantation", root))
    scene = data.train.scenes[0]
    pixels, target = scene.read(Window(0, 0, SIDE, SIDE))
    assert pixels[:, 20, 20].tolist() == [1001, 1101, 1201]  # B09, B11, B12 of id_1
    assert read_labels(scene).mask[20, 20] == 3 and target.has_labels
    assert scene.raster.files == (root / "m-cashew-plant" / f"{scene.name}.hdf5",)
    assert data.splits == {"train": ["id_1", "id_2"], "val": ["id_3"], "test": ["id_4"]}
    damaged = root / "m-cashew-plant/id_1.hdf5"
    damaged.unlink()  # the open handle would still read the old file
    damaged.write_bytes(b"\x89HDF\r\n\x1a\n cut off")
    with raises("file-unreadable", mentions=["id_1.hdf5"]):
        build_data(recipe_on("m_cashew_plantation", root))


def test_rural_and_urban_are_the_regions_of_loveda(
    copy_of: WriteCopy, recipe_on: MakeRecipe
) -> None:
    root = copy_of("loveda")
    data = build_data(recipe_on("loveda", root))
    assert {scene.group for scene in data.train.scenes} == {"Rural", "Urban"}
    assert data.splits["val"] == ["Val_Rural_2", "Val_Urban_3"] and data.test is None
    split = {"kind": "group", "by": "^[A-Za-z]+_([A-Za-z]+)_", "val": ["Urban"]}
    across = build_data(recipe_on("loveda", root, split=split))
    assert across.splits["train"] == [
        "Train_Rural_0",
        "Val_Rural_2",
    ]  # the test labels are not published


def test_oriented_boxes_of_dior_are_read_from_their_own_files(
    copy_of: WriteCopy, recipe_on: MakeRecipe
) -> None:
    root = copy_of("dior")
    recipe = recipe_on("dior", root)
    values = recipe.model_dump(mode="json")
    values["task"]["boxes"] = "oriented"
    values["decoder"] = {"kind": "rotated_fcos"}
    oriented = Recipe.model_validate(values)
    for case, width in ((recipe, 4), (oriented, 5)):
        scene = build_data(case).train.scenes[0]
        assert scene.labels.boxes.shape == (2, width)  # type: ignore[attr-defined]  # objects
        folder = "Oriented" if width == 5 else "Horizontal"
        assert scene.labels.path.parent.name == f"{folder} Bounding Boxes"


def test_greyscale_images_are_repeated_for_each_band_and_noted(
    copy_of: WriteCopy, recipe_on: MakeRecipe
) -> None:
    data = build_data(recipe_on("dota", copy_of("dota")))
    assert any(note.startswith("greyscale images") and ": 1 (P0003)" in note for note in data.notes)
    grey = next(scene for scene in data.val.scenes if scene.name == "P0003")
    pixels = grey.raster.read(Window(0, 0, SIDE, SIDE))
    assert (pixels == pixels[:1]).all() and len(pixels) == 3


def test_negative_images_have_no_objects(copy_of: WriteCopy, recipe_on: MakeRecipe) -> None:
    data = build_data(recipe_on("nwpu_vhr10", copy_of("nwpu_vhr10")))
    scenes = [*data.train.scenes, *data.val.scenes, *(data.test.scenes if data.test else ())]
    counts = {scene.name: len(scene.labels.boxes) for scene in scenes}  # type: ignore[attr-defined]
    assert counts["negative_001"] == 0 and counts["positive_001"] == 2


def test_a_subset_of_the_object_classes_can_be_used(
    copy_of: WriteCopy, recipe_on: MakeRecipe
) -> None:
    root = copy_of("nwpu_vhr10")
    data = build_data(recipe_on("nwpu_vhr10", root, task={"classes": ["vehicle"]}))
    assert any("skipped" in note for note in data.notes)
    assert sum(data.class_counts["train"]) == len([n for n in data.splits["train"] if "pos" in n])


def test_an_unknown_published_split_is_rejected(copy_of: WriteCopy, recipe_on: MakeRecipe) -> None:
    root = copy_of("nwpu_vhr10")
    with raises("split-name-unknown", key="data.split", mentions=["nwpu_vhr10"]):
        build_data(recipe_on("nwpu_vhr10", root, split={"kind": "published"}))
    split = {"kind": "published", "name": "x"}
    mentions = ["burn_scars", "'x'", "peft_geofm, authors"]
    with raises("split-name-unknown", key="data.split.name", mentions=mentions):
        build_data(recipe_on("burn_scars", copy_of("burn_scars"), split=split))


def test_a_published_split_is_selected_by_name(copy_of: WriteCopy, recipe_on: MakeRecipe) -> None:
    root = copy_of("burn_scars")
    split = {"kind": "published", "name": "authors"}
    data = build_data(recipe_on("burn_scars", root, split=split))
    folders = {path.parent.name for scene in data.val.scenes for path in scene.raster.files}
    assert folders == {"validation"} and data.test is None


def test_other_bands_and_tasks_are_rejected(copy_of: WriteCopy, recipe_on: MakeRecipe) -> None:
    with raises("recipe-invalid", mentions=["eurosat", "classify", "segment"]):
        recipe_on("eurosat", Path("x"), task={"kind": "segment"})
    with pytest.raises(ValueError, match=r"nwpu_vhr10.*horizontal"):
        check_published("nwpu_vhr10", DetectOptions(classes=["ship"], boxes="oriented"))
    recipe = recipe_on("loveda", copy_of("loveda"))
    values = recipe.model_dump(mode="json")
    values["backbone"]["bands"] = ["red", "nir"]
    with raises("band-missing", key="backbone.bands", mentions=["nir", "red, green, blue"]):
        build_data(Recipe.model_validate(values))


def test_transparency_of_published_images_is_no_data(
    copy_of: WriteCopy, recipe_on: MakeRecipe
) -> None:
    root = copy_of("loveda")
    scene = build_data(recipe_on("loveda", root)).train.scenes[0]
    with rasterio.open(scene.raster.path) as file:
        image = file.read()
    alpha = np.full((1, *image.shape[1:]), 255, dtype="uint8")
    alpha[:, :4] = 0
    write(scene.raster.path, np.concatenate([image, alpha]))
    again = build_data(recipe_on("loveda", root)).train.scenes[0]
    pixels = again.raster.read(Window(0, 0, *again.shape))
    assert np.isnan(pixels[:, :4]).all() and (pixels[:, 4:] == image[:, 4:]).all()
    write(scene.raster.path, image[:2])
    with raises("band-names", file=scene.raster.path, mentions=["red, green, blue"]) as caught:
        build_data(recipe_on("loveda", root))
    assert caught.value.key is None  # the recipe cannot name the bands of a published set
