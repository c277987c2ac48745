"""From a recipe to its data: opened, split, read and checked.

Needs no torch, so that a fault in the data is answered before the seconds that its import takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from geotune.backbones.spec import band_names
from geotune.config import DataSection, Recipe
from geotune.config.data_options import NamedOptions, QualityOptions
from geotune.config.task_options import DetectOptions
from geotune.data.annotations.annotated_scenes import open_annotated_scenes, uncounted_object_notes
from geotune.data.annotations.base import AnnotationOptions
from geotune.data.checks.registry import run_checks
from geotune.data.checks.scanned import ScannedData, resolve_window, scan_splits
from geotune.data.datamodule import DataModule, datamodule_from_scan
from geotune.data.issues import ErrorCollector, Issue, raise_on_error
from geotune.data.labels.base import LabelReader
from geotune.data.published.published_scenes import open_published_scenes
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.chips import open_chips
from geotune.data.scenes.find import Names
from geotune.data.scenes.image_folder import open_images
from geotune.data.scenes.open_scenes import open_scenes
from geotune.data.scenes.quality import with_quality
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits, subsample_train
from geotune.data.synthetic.synthetic_scenes import CLASSES as SYNTHETIC_CLASSES
from geotune.data.synthetic.synthetic_scenes import (
    DEFAULT_BANDS,
    PIXEL_M,
    labels_path,
    write_synthetic_scenes,
)
from geotune.datasets.registry import get_dataset_info
from geotune.errors import GeotuneError
from geotune.registry import LABEL_READERS, SPLITTERS


@dataclass(frozen=True)
class FileInfo:
    """What the files say of themselves; see `DataModule`."""

    bands: tuple[str, ...]
    gsd_m: float | None
    wavelengths: dict[str, float]
    window: int
    label_mean_std: tuple[float, float] | None = None


def label_reader(recipe: Recipe) -> LabelReader:
    """What opens the labels of a scene for the recipe's task."""
    reader: LabelReader = LABEL_READERS[recipe.task.kind].load()(recipe.data, recipe.task)
    return reader


def build_data(recipe: Recipe) -> DataModule:
    """Open, split, read and check the recipe's data.

    Raises `GeotuneError` for the first problem; `train.skip_bad_samples` skips up to 5 % unusable
    samples instead.
    """
    errors = ErrorCollector(keep=recipe.train.skip_bad_samples)
    examined = examine_data(recipe, errors)
    skipped = errors.skip_unusable(len(examined.scenes) + len(errors.scenes))
    findings = check_data(recipe, examined)
    raise_on_error(findings)
    notes = [f"skipped, for train.skip_bad_samples: {text}" for text in skipped]
    notes += [one.text for one in findings]
    return replace(make_datasets(recipe, examined, notes), skipped=tuple(skipped))


def examine_data(
    recipe: Recipe, errors: ErrorCollector, progress: Callable[[int, int], None] | None = None
) -> ScannedData:
    """Open, split and read the recipe's data.

    `progress` receives scenes read and their total. Raises `GeotuneError` for a problem; `errors`
    may collect the problems of single files instead.
    """
    scenes = open_data(recipe, errors)
    split = recipe.data.split
    parts: Splits = SPLITTERS[split.kind].load()(scenes, split, failed=errors.scenes)
    parts = subsample_train(parts, recipe.data.fraction, seed=recipe.train.seed)
    total = sum(map(len, parts.values()))
    done = count(1)
    return scan_splits(
        parts,
        window=recipe.data.window,
        metadata=recipe.backbone.metadata,
        progress=progress and (lambda scene: progress(next(done), total)),
        errors=errors,
    )


def check_data(recipe: Recipe, examined: ScannedData) -> list[Issue]:
    """The issues of all checks, errors first."""
    issues = run_checks(examined, allow_overlap=recipe.data.split.allow_overlap)
    cuts = uncounted_object_notes(examined.splits, examined.window)
    return [*issues, *(Issue("note", "labels", text) for text in cuts)]


def make_datasets(recipe: Recipe, examined: ScannedData, notes: Sequence[str] = ()) -> DataModule:
    """The data sets of a training. Raises `GeotuneError` for a band without any data."""
    data = recipe.data
    return datamodule_from_scan(
        examined,
        samples=data.samples,
        rare_class_fraction=data.rare_class_fraction,
        augment=data.augment,
        brightness=data.brightness,
        seed=recipe.train.seed,
        metadata=recipe.backbone.metadata,
        notes=notes,
    )


def with_window(recipe: Recipe, window: int) -> Recipe:
    """The recipe with the window side that was derived from the images."""
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"window": window})})


def inspect_files(recipe: Recipe) -> FileInfo:
    """Bands and metadata of the recipe's files; no pixel is read.

    Raises `GeotuneError` for files that cannot be opened or do not fit.
    """
    if recipe.data.kind == "synthetic":
        bands = recipe.backbone.bands
        named = DEFAULT_BANDS if bands is None else band_names(bands)
        return FileInfo(named, PIXEL_M, {}, recipe.data.window)
    scenes = open_data(recipe)
    raster = scenes[0].raster
    window = resolve_window(scenes, recipe.data.window)
    return FileInfo(raster.bands, raster.gsd_m, dict(raster.wavelengths), window)


def declared_bands_nodata(data: DataSection) -> tuple[Names | None, float | None]:
    """Band names in file order and nodata value that the recipe declares for its files."""
    if isinstance(data, NamedOptions):
        about = get_dataset_info(data.name)
        return list(about.bands), about.nodata
    return data.bands, data.nodata


def open_data(recipe: Recipe, errors: ErrorCollector | None = None) -> list[Scene]:
    """Open the scenes of the recipe's data with their labels; no pixel is read."""
    errors = errors or ErrorCollector()
    bands = recipe.backbone.bands
    wanted = None if bands is None or isinstance(bands, int) else band_names(bands)
    own, nodata = declared_bands_nodata(recipe.data)
    scenes = OPENERS[recipe.data.kind](
        recipe,
        bands=own,
        wanted_bands=wanted,
        nodata=nodata,
        resolution=resolution_m(recipe),
        errors=errors,
    )
    scenes = _with_quality_masks(scenes, recipe, errors)
    if not scenes:
        raise_on_error(errors.issues)
    found = scenes[0].raster.bands
    if isinstance(bands, int) and len(found) != bands:
        raise GeotuneError(
            f"backbone.bands: expected {bands} bands, found {len(found)}: {', '.join(found)}",
            code="bands-inconsistent",
            key="backbone.bands",
            file=scenes[0].raster.path,
        )
    return scenes


def _with_quality_masks(
    scenes: Sequence[Scene], recipe: Recipe, errors: ErrorCollector
) -> list[Scene]:
    """The scenes with their quality masks; `errors` may collect unsuitable ones."""
    quality = quality_options(recipe)
    kept = []
    for scene in scenes:
        with errors.catch(scene.name, scene.raster.path):
            named = {scene.name: scene.raster}
            require_dates(named, recipe.backbone.timesteps)
            if quality is not None:
                named = with_quality(named, quality)
            kept.append(replace(scene, raster=named[scene.name]))
    return kept


def require_dates(sources: Mapping[str, RasterSource], timesteps: int) -> None:
    """Raise `GeotuneError` for an image with more or fewer dates than the backbone takes."""
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
        return _open_objects(recipe.task, data, **files)
    return open_scenes(
        label_reader(recipe),
        scenes=data.scenes,
        labels=data.labels,
        missing_labels=data.missing_labels,
        **files,
    )


def _open_objects(task: DetectOptions, data: Any, **files: Any) -> list[Scene]:
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


def _open_synthetic(recipe: Recipe, **files: Any) -> list[Scene]:
    data: Any = recipe.data
    task: Any = recipe.task
    classes = task.classes
    if tuple(classes) != tuple(SYNTHETIC_CLASSES):
        raise GeotuneError(
            f"task.classes: synthetic scenes have {', '.join(SYNTHETIC_CLASSES)}, "
            f"found {', '.join(classes)}; use the former",
            code="class-unknown",
            key="task.classes",
        )
    images = write_synthetic_scenes(data.folder, count=data.count, size=data.size, seed=data.seed)
    return open_scenes(
        label_reader(recipe),
        scenes=[str(path) for path in images],
        labels=str(labels_path(images[0])).replace(images[0].stem, "{stem}"),
        **files,
    )


def _open_images(recipe: Recipe, **files: Any) -> list[Scene]:
    data: Any = recipe.data
    task: Any = recipe.task
    if task.kind == "regress":
        names, column = [task.quantity], "value"
    else:
        names, column = task.classes, "labels" if task.multilabel else "label"
    return open_images(
        images=data.images, labels=data.labels, classes=names, column=column, **files
    )


def _open_named(
    recipe: Recipe, *, wanted_bands: Sequence[str] | None, errors: ErrorCollector, **_: Any
) -> list[Scene]:
    data: Any = recipe.data
    task: Any = recipe.task
    about = get_dataset_info(data.name)
    published = data.split.kind == "published"
    return open_published_scenes(
        about,
        data.root,
        classes=task.classes,
        wanted_bands=wanted_bands,
        published=published,
        split=data.split.name if published else None,
        ignore_values=data.ignore_values,
        options=AnnotationOptions(
            oriented=getattr(task, "boxes", None) == "oriented",
            min_visibility=data.min_visibility,
            other_classes="leave_out" if len(task.classes) < len(about.classes) else "refuse",
        ),
        errors=errors,
    )


OPENERS: dict[str, Callable[..., list[Scene]]] = {
    "scenes": _open_scenes,
    "chips": _open_chips,
    "synthetic": _open_synthetic,
    "images": _open_images,
    "named": _open_named,
}
"""By the data's kind: what finds the images and their labels."""
