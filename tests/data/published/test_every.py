"""Every named data set, on a tiny copy with its true layout."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from geotune.api.fitting import fit
from geotune.config import Recipe
from geotune.datasets.registry import DATASETS, get_dataset_info
from geotune.errors import GeotuneError
from geotune.factory.build_data import build_data
from helpers.published_datasets import WRITERS

Copy = Callable[[str], Path]
On = Callable[..., Recipe]


def test_every_data_set_has_a_copy() -> None:
    assert list(WRITERS) == list(DATASETS)


@pytest.mark.parametrize("name", DATASETS)
def test_a_copy_is_read_with_bands_classes_and_parts(
    name: str, copy_of: Copy, recipe_on: On
) -> None:
    about = get_dataset_info(name)
    data = build_data(recipe_on(name, copy_of(name)))
    sample = data.train[0]
    assert sample.image.shape == (3, data.window, data.window)
    assert np.isfinite(sample.image).any()
    assert data.train.scenes[0].raster.bands == tuple(about.bands[-3:])
    assert sample.target.has_labels or about.task == "detect"
    assert len(data.class_counts["train"]) == len(about.classes)
    held = {"train", "val"} | ({"test"} if data.test is not None else set())
    assert all(sum(data.class_counts[part]) for part in held)
    names = [name for part in data.splits.values() for name in part]
    assert len(names) == len(set(names))


@pytest.mark.slow
@pytest.mark.parametrize("name", DATASETS)
def test_a_copy_trains(name: str, copy_of: Copy, recipe_on: On, tmp_path: Path) -> None:
    recipe = recipe_on(name, copy_of(name))
    result = fit(recipe, run=tmp_path / "run")
    assert result.summary["epochs"] == 1
    assert (tmp_path / "run" / "adapter.safetensors").is_file()


@pytest.mark.parametrize("name", DATASETS)
def test_an_empty_folder_is_told_what_it_lacks(name: str, tmp_path: Path, recipe_on: On) -> None:
    about = get_dataset_info(name)
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(GeotuneError) as caught:
            build_data(recipe_on(name, root))
        said = str(caught.value)
        assert said.startswith(f"{root}: ")
        assert about.licence in said and about.images[0] in said
        assert "get it from https" in said or "get it from http" in said


@pytest.mark.parametrize("name", ["sen1floods11", "dior", "loveda", "fair1m", "vaihingen"])
def test_an_image_without_its_label_is_named(name: str, copy_of: Copy, recipe_on: On) -> None:
    root = copy_of(name)
    about = get_dataset_info(name)
    first = next(file for p in about.labels for file in sorted(root.glob(_any(p))))
    first.unlink()
    with pytest.raises(GeotuneError, match="has no label file") as caught:
        build_data(recipe_on(name, root))
    assert first.name in str(caught.value)


@pytest.mark.parametrize("name", ["sen1floods11", "burn_scars", "reben_7k", "eurosat", "potsdam"])
def test_a_missing_image_of_the_split_is_named(name: str, copy_of: Copy, recipe_on: On) -> None:
    root = copy_of(name)
    pattern = get_dataset_info(name).images[0].replace("{band}", "B12")
    gone = next(iter(sorted(root.glob(_any(pattern)))))
    gone.unlink()
    with pytest.raises(GeotuneError, match=r"1 of \d+ images of the split are missing, such as "):
        build_data(recipe_on(name, root))


def _any(pattern: str) -> str:
    return re.sub(r"\{\w+\}", "*", pattern)
