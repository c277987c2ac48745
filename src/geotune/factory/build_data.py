"""Build the data of a recipe: open, split, scan and check its scenes.

Does not import torch, which takes seconds, so that data errors are reported at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import count

from geotune.backbones.spec import band_names
from geotune.config import Recipe
from geotune.config.data_options import ChipsOptions, ImagesOptions, ScenesOptions
from geotune.config.task_options import ReconstructOptions
from geotune.data.annotations.annotated_scenes import uncounted_object_notes
from geotune.data.checks.registry import run_checks
from geotune.data.checks.scan import ScanStore
from geotune.data.checks.scan_cache import ScanCache, default_path
from geotune.data.checks.scanned import ScannedData, resolve_window, scan_splits
from geotune.data.datamodule import DataModule, datamodule_from_scan
from geotune.data.issues import ErrorCollector, Issue, raise_on_error
from geotune.data.patch_masking import PatchMasking
from geotune.data.raster.header import cached_headers
from geotune.data.scenes.chips import unread_chips
from geotune.data.scenes.labelled_images import unread_images
from geotune.data.scenes.open_scenes import missed_images
from geotune.data.splits.base import Splits, subsample_train
from geotune.data.synthetic.synthetic_scenes import DEFAULT_BANDS, PIXEL_M
from geotune.factory.open_data import open_data
from geotune.registry import SPLITTERS
from geotune.utils.progress import OnProgress, ignore_progress


@dataclass(frozen=True)
class FileInfo:
    """Metadata of the files; the attributes are those of `DataModule`."""

    bands: tuple[str, ...]
    gsd_m: float | None
    wavelengths: dict[str, float]
    window: int
    label_mean_std: tuple[float, float] | None = None


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
