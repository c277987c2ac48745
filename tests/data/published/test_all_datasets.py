"""Every published data set, on a tiny copy with its original layout."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geotune.api.fitting import fit
from geotune.api.init.published import published_layout
from geotune.config import Recipe
from geotune.datasets.base import ListFileSplit
from geotune.datasets.registry import DATASETS, get_dataset_info
from geotune.factory.build_data import build_data
from helpers.errors import raises
from helpers.published_datasets import WRITERS

WriteCopy = Callable[[str], Path]
MakeRecipe = Callable[..., Recipe]


def test_every_data_set_has_a_writer() -> None:
    assert list(WRITERS) == list(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_data_sets_are_read_with_their_bands_classes_and_splits(
    name: str, copy_of: WriteCopy, recipe_on: MakeRecipe
) -> None:
    info = get_dataset_info(name)
    data = build_data(recipe_on(name, copy_of(name)))
    sample = data.train[0]
    assert sample.image.shape == (len(info.bands[-3:]), data.window, data.window)
    assert np.isfinite(sample.image).any()
    assert data.train.scenes[0].raster.bands == tuple(info.bands[-3:])
    assert sample.target.has_labels or info.task == "detect"
    assert len(data.class_counts["train"]) == len(info.classes)
    splits = {"train", "val"} | ({"test"} if data.test is not None else set())
    assert all(sum(data.class_counts[split]) for split in splits)
    names = [name for scenes in data.splits.values() for name in scenes]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("name", DATASETS)
def test_init_recognises_them_by_their_files(name: str, copy_of: WriteCopy) -> None:
    info, root = get_dataset_info(name), copy_of(name)
    layout = published_layout(root)
    assert layout is not None
    assert layout.data == {"kind": "named", "name": name, "root": str(root)}
    assert layout.published_split == bool(info.splits)
    for split in info.splits.values():
        for file in split.files.values() if isinstance(split, ListFileSplit) else ():
            (root / file).unlink(missing_ok=True)
    without = published_layout(root)
    if isinstance(next(iter(info.splits.values()), None), ListFileSplit):
        assert without is not None and not without.published_split
        assert "split" in without.comments["data.root"]


def test_other_data_in_the_folders_of_a_published_set_are_not_taken_for_it(
    copy_of: WriteCopy,
) -> None:
    root = copy_of("dota")
    for file in root.glob("*/labelTxt/*.txt"):
        file.write_text(file.read_text().replace("plane", "cow"))
    assert published_layout(root) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_data_sets_can_be_trained_on(
    name: str, copy_of: WriteCopy, recipe_on: MakeRecipe, tmp_path: Path
) -> None:
    recipe = recipe_on(name, copy_of(name))
    result = fit(recipe, run=tmp_path / "run")
    assert result.summary["epochs"] == 1
    assert (tmp_path / "run" / "adapter.safetensors").is_file()


@pytest.mark.parametrize("name", DATASETS)
def test_missing_files_are_reported_with_source_and_layout(
    name: str, tmp_path: Path, recipe_on: MakeRecipe
) -> None:
    info = get_dataset_info(name)
    mentions = ["get it from http", info.licence, info.images[0]]
    for root in (tmp_path, tmp_path / "nowhere"):
        with raises("dataset-files", key="data.root", file=root, mentions=mentions):
            build_data(recipe_on(name, root))


@pytest.mark.parametrize("name", ["sen1floods11", "dior", "loveda", "fair1m", "vaihingen"])
def test_a_missing_label_file_is_named(
    name: str, copy_of: WriteCopy, recipe_on: MakeRecipe
) -> None:
    root = copy_of(name)
    info = get_dataset_info(name)
    label = next(file for p in info.labels for file in sorted(root.glob(_as_glob(p))))
    label.unlink()
    with raises("dataset-files", mentions=["no label file", label.name]):
        build_data(recipe_on(name, root))


@pytest.mark.parametrize("name", ["sen1floods11", "burn_scars", "reben_7k", "eurosat", "potsdam"])
def test_missing_images_of_the_split_are_counted(
    name: str, copy_of: WriteCopy, recipe_on: MakeRecipe
) -> None:
    root = copy_of(name)
    pattern = get_dataset_info(name).images[0].replace("{band}", "B12")
    min(root.glob(_as_glob(pattern))).unlink()
    with raises("dataset-files", mentions=["1 of", "images of the split are missing"]):
        build_data(recipe_on(name, root))


def _as_glob(pattern: str) -> str:
    return re.sub(r"\{\w+\}", "*", pattern)
