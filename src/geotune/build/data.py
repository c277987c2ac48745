"""From a recipe to its data: opened, split, read and checked.

Needs no torch, so that a fault in the data is answered before the seconds that its import takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from geotune.backbones.request import band_names
from geotune.build.values import values_of
from geotune.data.chips import open_chips
from geotune.data.prepare import DataParts, prepare
from geotune.data.scene import Scene
from geotune.data.scenes import open_scenes
from geotune.data.splits import Parts, split_at_random, split_by_group, split_by_list
from geotune.data.synthetic import CLASSES as SYNTHETIC_CLASSES
from geotune.data.synthetic import labels_path, write_scenes
from geotune.recipe import Recipe
from geotune.types import GeotuneError

SPLITS: dict[str, Callable[..., Parts]] = {
    "list": split_by_list,
    "random": split_at_random,
    "group": split_by_group,
}


def build_data(recipe: Recipe, progress: Callable[[Scene], None] | None = None) -> DataParts:
    """Open, split, read and check the recipe's data. Raises `GeotuneError` for what is wrong."""
    data = recipe.data
    parts = SPLITS[data.split.kind](_open(recipe), **values_of(data.split))
    return prepare(
        parts,
        window=data.window,
        samples=data.samples,
        focus=data.focus,
        augment=data.augment,
        brightness=data.brightness,
        seed=recipe.train.seed,
        metadata=recipe.backbone.metadata,
        progress=progress,
    )


def _open(recipe: Recipe) -> list[Scene]:
    data = recipe.data
    bands = recipe.backbone.bands
    wanted = None if bands is None or isinstance(bands, int) else band_names(bands)
    labelled: dict[str, Any] = {
        "classes": recipe.task.classes,
        "bands": data.bands,
        "wanted_bands": wanted,
        "nodata": data.nodata,
        "class_values": data.class_values,
        "ignore_values": data.ignore_values,
    }
    if data.kind == "chips":
        scenes = open_chips(
            images=data.images,
            masks=data.masks,
            image_suffix=data.image_suffix,
            mask_suffix=data.mask_suffix,
            **labelled,
        )
    elif data.kind == "scenes":
        scenes = open_scenes(
            scenes=data.scenes,
            labels=data.labels,
            class_field=data.class_field,
            unlabelled=data.unlabelled,
            **labelled,
        )
    else:
        if tuple(recipe.task.classes) != tuple(SYNTHETIC_CLASSES):
            raise GeotuneError(
                f"task.classes: synthetic scenes have {', '.join(SYNTHETIC_CLASSES)}, "
                f"found {', '.join(recipe.task.classes)}"
            )
        images = write_scenes(data.folder, count=data.count, size=data.size, seed=data.seed)
        scenes = open_scenes(
            scenes=[str(path) for path in images],
            labels=str(labels_path(images[0])).replace(images[0].stem, "{stem}"),
            **labelled,
        )
    found = scenes[0].raster.bands
    if isinstance(bands, int) and len(found) != bands:
        raise GeotuneError(
            f"backbone.bands: expected {bands}, but the files have {len(found)}: {', '.join(found)}"
        )
    return scenes
