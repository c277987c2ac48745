"""Published data sets as images without labels, to continue a pretraining."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from geotune.api.pretraining import pretraining_recipe
from geotune.config import Recipe
from geotune.factory.build_data import build_data


@pytest.mark.parametrize("name", ["loveda", "nwpu_vhr10"])
def test_images_keep_their_splits_and_regions(
    name: str, copy_of: Callable[[str], Path], recipe_on: Callable[..., Recipe]
) -> None:
    recipe = recipe_on(name, copy_of(name))
    changes = ["method.kind=full", "task.teacher_weight=0", "task.patch=8"]
    later = pretraining_recipe(recipe, changes)
    assert later.data.window == recipe.data.window
    labelled, images = build_data(recipe), build_data(later)
    for split, names in labelled.splits.items():
        assert set(names) <= set(images.splits[split])  # some images have no labels
    assert {s.group for s in labelled.train.scenes} <= {s.group for s in images.train.scenes}
    assert images.train[0].mask is not None
