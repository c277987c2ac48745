"""From a recipe to its data: opened, split, read and checked.

Needs no torch, so that a fault in the data is answered before the seconds that its import takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from geotune.backbones.request import band_names
from geotune.build.values import values_of
from geotune.data.chips import open_chips
from geotune.data.objects.options import Options
from geotune.data.objects.scenes import cut_notes, open_object_scenes
from geotune.data.prepare import DataParts, prepare
from geotune.data.scene import Scene
from geotune.data.scenes import open_scenes
from geotune.data.splits import Parts, split_at_random, split_by_group, split_by_list
from geotune.data.synthetic import CLASSES as SYNTHETIC_CLASSES
from geotune.data.synthetic import DEFAULT_BANDS, labels_path, write_scenes
from geotune.data.synthetic_scene import PIXEL_M
from geotune.recipe import Recipe
from geotune.recipe.tasks import Detect
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
    made = prepare(
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
    return replace(made, notes=[*made.notes, *cut_notes(parts, data.window)])


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
    task = recipe.task
    scenes = _open_objects(recipe, task) if isinstance(task, Detect) else _open_pixels(recipe)
    found, bands = scenes[0].raster.bands, recipe.backbone.bands
    if isinstance(bands, int) and len(found) != bands:
        raise GeotuneError(
            f"backbone.bands: expected {bands}, but the files have {len(found)}: {', '.join(found)}"
        )
    return scenes


def _asked(recipe: Recipe) -> dict[str, Any]:
    """What is asked of the files whatever the task."""
    bands = recipe.backbone.bands
    return {
        "classes": recipe.task.classes,
        "bands": recipe.data.bands,
        "wanted_bands": None if bands is None or isinstance(bands, int) else band_names(bands),
        "nodata": recipe.data.nodata,
        "class_values": recipe.data.class_values,
    }


def _open_objects(recipe: Recipe, task: Detect) -> list[Scene]:
    data = recipe.data
    if data.kind != "scenes":
        raise GeotuneError(
            f"data.kind: {data.kind} has no objects; task.kind: detect reads kind: scenes, which "
            "takes folders of images too (scenes: images/*.png, labels: labels/{stem}.txt)"
        )
    options = Options(
        oriented=task.boxes == "oriented",
        visible=data.visible,
        class_field=data.class_field,
        point_size=data.point_size,
        other_classes=data.other_classes,
    )
    return open_object_scenes(
        scenes=data.scenes,
        labels=data.labels,
        format=data.format,
        missing=data.missing,
        options=options,
        **_asked(recipe),
    )


def _open_pixels(recipe: Recipe) -> list[Scene]:
    data = recipe.data
    labelled = {**_asked(recipe), "ignore_values": data.ignore_values}
    if data.kind == "chips":
        return open_chips(
            images=data.images,
            masks=data.masks,
            image_suffix=data.image_suffix,
            mask_suffix=data.mask_suffix,
            **labelled,
        )
    if data.kind == "scenes":
        return open_scenes(
            scenes=data.scenes,
            labels=data.labels,
            class_field=data.class_field,
            unlabelled=data.unlabelled,
            **labelled,
        )
    if tuple(recipe.task.classes) != tuple(SYNTHETIC_CLASSES):
        raise GeotuneError(
            f"task.classes: synthetic scenes have {', '.join(SYNTHETIC_CLASSES)}, "
            f"found {', '.join(recipe.task.classes)}"
        )
    images = write_scenes(data.folder, count=data.count, size=data.size, seed=data.seed)
    return open_scenes(
        scenes=[str(path) for path in images],
        labels=str(labels_path(images[0])).replace(images[0].stem, "{stem}"),
        **labelled,
    )
