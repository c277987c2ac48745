"""From a recipe to its data: opened, split, read and checked.

Needs no torch, so that a fault in the data is answered before the seconds that its import takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from geotune.backbones.request import band_names
from geotune.build.values import values_of
from geotune.data.chips import open_chips
from geotune.data.prepare import DataParts, prepare
from geotune.data.scene import Scene
from geotune.data.scenes import open_scenes
from geotune.data.splits import Parts, split_at_random, split_by_group, split_by_list
from geotune.data.synthetic import CLASSES as SYNTHETIC_CLASSES
from geotune.data.synthetic import DEFAULT_BANDS, labels_path, write_scenes
from geotune.data.synthetic_scene import PIXEL_M
from geotune.recipe import Recipe
from geotune.types import GeotuneError


@dataclass(frozen=True)
class FileFacts:
    """What the files say of themselves; see `DataParts`."""

    bands: tuple[str, ...]
    gsd_m: float | None
    wavelengths: dict[str, float]


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


def file_facts(recipe: Recipe) -> FileFacts:
    """Bands of the recipe's files, and what else a backbone is told; no pixel is read.

    Raises `GeotuneError` for files that cannot be opened or do not fit.
    """
    if recipe.data.kind == "synthetic":
        bands = recipe.backbone.bands
        named = DEFAULT_BANDS if bands is None else band_names(bands)
        return FileFacts(named, PIXEL_M, {})
    raster = _open(recipe)[0].raster
    return FileFacts(raster.bands, raster.gsd_m, dict(raster.wavelengths))


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
