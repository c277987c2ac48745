"""Open the scenes of a recipe, with or without labels, whatever the kind of its data.

Does not import torch, as `build_data`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from geotune.backbones.spec import band_names
from geotune.config import DataSection, Recipe
from geotune.config.data_options import NamedOptions, QualityOptions
from geotune.config.task_options import DetectOptions, ReconstructOptions
from geotune.data.annotations.annotated_scenes import open_annotated_scenes
from geotune.data.annotations.base import AnnotationOptions
from geotune.data.issues import ErrorCollector
from geotune.data.labels.base import LabelReader
from geotune.data.published.published_scenes import (
    open_published_images,
    open_published_scenes,
)
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.chips import open_chips
from geotune.data.scenes.labelled_images import open_images
from geotune.data.scenes.open_scenes import open_scenes
from geotune.data.scenes.quality import with_quality
from geotune.data.scenes.scene import Scene
from geotune.data.scenes.unlabelled import (
    open_unlabelled_chips,
    open_unlabelled_images,
    open_unlabelled_scenes,
)
from geotune.data.synthetic.synthetic_scenes import CLASSES as SYNTHETIC_CLASSES
from geotune.data.synthetic.synthetic_scenes import labels_path, write_synthetic_scenes
from geotune.datasets.registry import get_dataset_info
from geotune.errors import GeotuneError
from geotune.registry import LABEL_READERS
from geotune.utils.progress import OnProgress, ignore_progress


def label_reader(recipe: Recipe) -> LabelReader:
    """The reader that opens the labels of a scene for the recipe's task."""
    reader: LabelReader = LABEL_READERS[recipe.task.kind].load()(recipe.data, recipe.task)
    return reader


def declared_bands_nodata(
    data: DataSection,
) -> tuple[list[str] | dict[str, list[str]] | None, float | None]:
    """Band names in file order and nodata value that the recipe declares for its files."""
    if isinstance(data, NamedOptions):
        info = get_dataset_info(data.name)
        return list(info.bands), info.nodata
    return data.bands, data.nodata


def open_data(
    recipe: Recipe,
    errors: ErrorCollector | None = None,
    on_progress: OnProgress = ignore_progress,
) -> list[Scene]:
    """Open the scenes of the recipe's data with their labels, without reading pixels.

    `on_progress` receives the synthetic scenes that are created.
    """
    errors = errors or ErrorCollector()
    options = {"on_progress": on_progress} if recipe.data.kind == "synthetic" else {}
    bands = recipe.backbone.bands
    wanted = None if bands is None or isinstance(bands, int) else band_names(bands)
    file_bands, nodata = declared_bands_nodata(recipe.data)
    openers = UNLABELLED_OPENERS if isinstance(recipe.task, ReconstructOptions) else OPENERS
    scenes = openers[recipe.data.kind](
        recipe,
        bands=file_bands,
        wanted_bands=wanted,
        nodata=nodata,
        resolution=resolution_m(recipe),
        errors=errors,
        **options,
    )
    scenes = _check_dates_and_mask(scenes, recipe, errors)
    if not scenes:
        errors.raise_collected()
    names = scenes[0].raster.bands
    if isinstance(bands, int) and len(names) != bands:
        raise GeotuneError(
            f"backbone.bands: expected {bands} bands, found {len(names)}: {', '.join(names)}",
            code="bands-inconsistent",
            key="backbone.bands",
            file=scenes[0].raster.path,
        )
    return scenes


def _check_dates_and_mask(
    scenes: Sequence[Scene], recipe: Recipe, errors: ErrorCollector
) -> list[Scene]:
    """The usable scenes, with their quality masks; `errors` may collect the others."""
    quality = quality_options(recipe)
    usable = []
    for scene in scenes:
        with errors.catch(scene.name, scene.raster.path):
            sources = {scene.name: scene.raster}
            require_dates(sources, recipe.backbone.timesteps)
            if quality is not None:
                sources = with_quality(sources, quality, {scene.name: scene.attributes})
            usable.append(replace(scene, raster=sources[scene.name]))
    return usable


def require_dates(sources: Mapping[str, RasterSource], timesteps: int) -> None:
    """Raise `GeotuneError` for an image whose number of dates is not `timesteps`."""
    for source in sources.values():
        if source.num_dates != timesteps:
            raise GeotuneError(
                f"{source.path}: found {source.num_dates} dates, expected backbone.timesteps="
                f"{timesteps}; dates come from {{date}} in the path, and few backbones take "
                "several (geotune list backbones NAME)",
                code="dates-inconsistent",
                key="backbone.timesteps",
                file=source.path,
            )


def resolution_m(recipe: Recipe) -> float | None:
    """Pixel size in metres to which images are resampled; None keeps their own."""
    if isinstance(recipe.data, NamedOptions) or recipe.data.resolution is None:
        return None
    return float(recipe.data.resolution.rstrip(" m"))


def quality_options(recipe: Recipe) -> QualityOptions | None:
    """The quality mask options of the recipe, if any."""
    return None if isinstance(recipe.data, NamedOptions) else recipe.data.quality


def _open_scenes(recipe: Recipe, **files: Any) -> list[Scene]:
    data: Any = recipe.data
    if isinstance(recipe.task, DetectOptions):
        return _open_annotated(recipe.task, data, **files)
    return open_scenes(
        label_reader(recipe),
        scenes=data.scenes,
        labels=data.labels,
        missing_labels=data.missing_labels,
        **files,
    )


def _open_annotated(task: DetectOptions, data: Any, **files: Any) -> list[Scene]:
    options = AnnotationOptions(
        oriented=task.boxes == "oriented",
        min_visibility=data.min_visibility,
        class_field=data.class_field,
        point_size=data.point_size,
        other_classes=data.other_classes,
    )
    return open_annotated_scenes(
        scenes=data.scenes,
        labels=data.labels,
        classes=task.classes,
        options=options,
        format=data.format,
        missing_labels=data.missing_labels,
        class_values=data.class_values,
        **files,
    )


def _open_chips(recipe: Recipe, **files: Any) -> list[Scene]:
    data: Any = recipe.data
    return open_chips(
        label_reader(recipe),
        images=data.images,
        masks=data.masks,
        image_suffix=data.image_suffix,
        mask_suffix=data.mask_suffix,
        **files,
    )


def _open_synthetic(
    recipe: Recipe, *, on_progress: OnProgress = ignore_progress, **files: Any
) -> list[Scene]:
    data: Any = recipe.data
    task: Any = recipe.task
    classes = task.classes
    if tuple(classes) != tuple(SYNTHETIC_CLASSES):
        raise GeotuneError(
            f"task.classes: synthetic scenes have {', '.join(SYNTHETIC_CLASSES)}, "
            f"found {', '.join(classes)}; use the classes of the synthetic scenes",
            code="class-unknown",
            key="task.classes",
        )
    images = _synthetic_images(data, on_progress)
    return open_scenes(
        label_reader(recipe),
        scenes=[str(path) for path in images],
        labels=str(labels_path(images[0])).replace(images[0].stem, "{stem}"),
        **files,
    )


def _synthetic_images(data: Any, on_progress: OnProgress) -> list[Path]:
    return write_synthetic_scenes(
        data.folder,
        count=data.count,
        size=data.size,
        seed=data.seed,
        on_progress=partial(on_progress, "creating scenes"),
    )


def _open_images(recipe: Recipe, **files: Any) -> list[Scene]:
    data: Any = recipe.data
    task: Any = recipe.task
    if task.kind == "regress":
        classes, column = [task.quantity], "value"
    else:
        classes, column = task.classes, "labels" if task.multilabel else "label"
    return open_images(
        images=data.images, labels=data.labels, classes=classes, column=column, **files
    )


def _open_published(
    recipe: Recipe, *, wanted_bands: Sequence[str] | None, errors: ErrorCollector, **_: Any
) -> list[Scene]:
    data: Any = recipe.data
    task: Any = recipe.task
    info = get_dataset_info(data.name)
    published = data.split.kind == "published"
    return open_published_scenes(
        info,
        data.root,
        classes=task.classes,
        wanted_bands=wanted_bands,
        published=published,
        split=data.split.name if published else None,
        ignore_values=data.ignore_values,
        options=AnnotationOptions(
            oriented=getattr(task, "boxes", None) == "oriented",
            min_visibility=data.min_visibility,
            other_classes="leave_out" if len(task.classes) < len(info.classes) else "refuse",
        ),
        errors=errors,
    )


OPENERS: dict[str, Callable[..., list[Scene]]] = {
    "scenes": _open_scenes,
    "chips": _open_chips,
    "synthetic": _open_synthetic,
    "images": _open_images,
    "named": _open_published,
}
"""`data.kind` to the function that opens the scenes."""


def _unlabelled_scenes(recipe: Recipe, **files: Any) -> list[Scene]:
    data: Any = recipe.data
    return open_unlabelled_scenes(scenes=data.scenes, labels=data.labels, **files)


def _unlabelled_chips(recipe: Recipe, **files: Any) -> list[Scene]:
    data: Any = recipe.data
    return open_unlabelled_chips(
        images=data.images,
        masks=data.masks,
        image_suffix=data.image_suffix,
        mask_suffix=data.mask_suffix,
        **files,
    )


def _unlabelled_synthetic(
    recipe: Recipe, *, on_progress: OnProgress = ignore_progress, **files: Any
) -> list[Scene]:
    images = _synthetic_images(recipe.data, on_progress)
    return open_unlabelled_scenes(scenes=[str(path) for path in images], **files)


def _unlabelled_images(recipe: Recipe, **files: Any) -> list[Scene]:
    data: Any = recipe.data
    return open_unlabelled_images(images=data.images, labels=data.labels, **files)


def _unlabelled_published(
    recipe: Recipe, *, wanted_bands: Sequence[str] | None, errors: ErrorCollector, **_: Any
) -> list[Scene]:
    data: Any = recipe.data
    published = data.split.kind == "published"
    return open_published_images(
        get_dataset_info(data.name),
        data.root,
        wanted_bands=wanted_bands,
        published=published,
        split=data.split.name if published else None,
        errors=errors,
    )


UNLABELLED_OPENERS: dict[str, Callable[..., list[Scene]]] = {
    "scenes": _unlabelled_scenes,
    "chips": _unlabelled_chips,
    "synthetic": _unlabelled_synthetic,
    "images": _unlabelled_images,
    "named": _unlabelled_published,
}
"""`data.kind` to the function that opens the images without labels."""
