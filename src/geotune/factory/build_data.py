"""Build the data of a recipe: open, split, scan and check its scenes.

Does not import torch, which takes seconds, so that data errors are reported at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from geotune.backbones.spec import band_names
from geotune.config import DataSection, Recipe
from geotune.config.data_options import (
    ChipsOptions,
    ImagesOptions,
    NamedOptions,
    QualityOptions,
    ScenesOptions,
)
from geotune.config.task_options import DetectOptions, ReconstructOptions
from geotune.data.annotations.annotated_scenes import open_annotated_scenes, uncounted_object_notes
from geotune.data.annotations.base import AnnotationOptions
from geotune.data.checks.registry import run_checks
from geotune.data.checks.scan import ScanStore
from geotune.data.checks.scan_cache import ScanCache, default_path
from geotune.data.checks.scanned import ScannedData, resolve_window, scan_splits
from geotune.data.datamodule import DataModule, datamodule_from_scan
from geotune.data.issues import ErrorCollector, Issue, raise_on_error
from geotune.data.labels.base import LabelReader
from geotune.data.patch_masking import PatchMasking
from geotune.data.published.published_scenes import (
    open_published_images,
    open_published_scenes,
)
from geotune.data.raster.header import cached_headers
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.chips import open_chips, unread_chips
from geotune.data.scenes.labelled_images import open_images, unread_images
from geotune.data.scenes.open_scenes import missed_images, open_scenes
from geotune.data.scenes.quality import with_quality
from geotune.data.scenes.scene import Scene
from geotune.data.scenes.unlabelled import (
    open_unlabelled_chips,
    open_unlabelled_images,
    open_unlabelled_scenes,
)
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
from geotune.utils.progress import OnProgress, ignore_progress


@dataclass(frozen=True)
class FileInfo:
    """Metadata of the files; the attributes are those of `DataModule`."""

    bands: tuple[str, ...]
    gsd_m: float | None
    wavelengths: dict[str, float]
    window: int
    label_mean_std: tuple[float, float] | None = None


def label_reader(recipe: Recipe) -> LabelReader:
    """The reader that opens the labels of a scene for the recipe's task."""
    reader: LabelReader = LABEL_READERS[recipe.task.kind].load()(recipe.data, recipe.task)
    return reader


def build_data(recipe: Recipe, on_progress: OnProgress = ignore_progress) -> DataModule:
    """Open, split, read and check the recipe's data; files that did not change are not read again.

    `on_progress` receives the scenes that were read. Raises `GeotuneError` for the first problem;
    `train.skip_bad_samples` skips up to 5 % unusable samples instead.
    """
    errors = ErrorCollector(keep=recipe.train.skip_bad_samples)
    with closing(ScanCache(default_path())) as store:
        scanned = scan_data(recipe, errors, on_progress, store)
    skipped = errors.skip_unusable(len(scanned.scenes) + len(errors.scenes))
    issues = check_data(recipe, scanned)
    raise_on_error(issues)
    notes = [f"skipped, for train.skip_bad_samples: {text}" for text in skipped]
    notes += [issue.text for issue in issues]
    return replace(make_datasets(recipe, scanned, notes), skipped=tuple(skipped))


def scan_data(
    recipe: Recipe,
    errors: ErrorCollector,
    on_progress: OnProgress = ignore_progress,
    store: ScanStore | None = None,
) -> ScannedData:
    """Open, split and scan the recipe's data.

    `on_progress` receives the number of scanned scenes and the total. Raises `GeotuneError` for the
    first error; `errors` may collect those of single files.
    """
    on_progress("opening files", 0, 1)
    with cached_headers(store):
        scenes = open_data(recipe, errors, on_progress)
    on_progress("opening files", 1, 1)
    options = recipe.data.split
    splits: Splits = SPLITTERS[options.kind].load()(scenes, options, failed=errors.scenes)
    splits = subsample_train(splits, recipe.data.fraction, seed=recipe.train.seed)
    total = sum(map(len, splits.values()))
    done = count(1)
    on_progress("reading scenes", 0, total)
    return scan_splits(
        splits,
        window=recipe.data.window,
        metadata=recipe.backbone.metadata,
        store=store,
        progress=lambda scene: on_progress("reading scenes", next(done), total),
        errors=errors,
    )


def check_data(recipe: Recipe, scanned: ScannedData) -> list[Issue]:
    """The issues of all checks, errors first."""
    issues = run_checks(scanned, allow_overlap=recipe.data.split.allow_overlap)
    notes = uncounted_object_notes(scanned.splits, scanned.window)
    data = recipe.data
    if isinstance(data, ScenesOptions):
        issues += missed_images(data.scenes, [scene for _, scene, _ in scanned.scenes])
    elif isinstance(recipe.task, ReconstructOptions):
        pass  # every image below a folder is read
    elif isinstance(data, ChipsOptions):
        issues += unread_chips(data.images, data.masks, data.image_suffix, data.mask_suffix)
    elif isinstance(data, ImagesOptions):
        issues += unread_images(data.images, data.labels)
    return [*issues, *(Issue("note", "labels", text) for text in notes)]


def make_datasets(recipe: Recipe, scanned: ScannedData, notes: Sequence[str] = ()) -> DataModule:
    """The datasets of a training. Raises `GeotuneError` for a band without valid pixels."""
    data = recipe.data
    masking = None
    if isinstance(recipe.task, ReconstructOptions):
        recipe.task.check_window(scanned.window)
        masking = PatchMasking(recipe.task.mask_ratio, recipe.task.patch)
    return datamodule_from_scan(
        scanned,
        samples=data.samples,
        rare_class_fraction=data.rare_class_fraction,
        augment=data.augment,
        brightness=data.brightness,
        seed=recipe.train.seed,
        metadata=recipe.backbone.metadata,
        replacement=data.replacement,
        masking=masking,
        notes=notes,
    )


def with_window(recipe: Recipe, window: int) -> Recipe:
    """The recipe with the window size that was derived from the images.

    Raises `GeotuneError` if its task does not support windows of that size.
    """
    if isinstance(recipe.task, ReconstructOptions):
        recipe.task.check_window(window)
    return recipe.model_copy(update={"data": recipe.data.model_copy(update={"window": window})})


def inspect_files(recipe: Recipe) -> FileInfo:
    """Bands and metadata of the recipe's files, without reading pixels.

    Raises `GeotuneError` for files that cannot be opened or do not match the recipe.
    """
    if recipe.data.kind == "synthetic":
        bands = recipe.backbone.bands
        names = DEFAULT_BANDS if bands is None else band_names(bands)
        return FileInfo(names, PIXEL_M, {}, recipe.data.window)
    scenes = open_data(recipe)
    raster = scenes[0].raster
    window = resolve_window(scenes, recipe.data.window)
    return FileInfo(raster.bands, raster.gsd_m, dict(raster.wavelengths), window)


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
