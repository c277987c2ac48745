"""The datasets for training, validation and testing, made from scanned and checked scenes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geotune.config.data_options import AugmentOptions
from geotune.data.checks.registry import run_checks
from geotune.data.checks.scan import band_statistics, label_statistics
from geotune.data.checks.scanned import ScannedData, scan_splits
from geotune.data.issues import raise_on_error
from geotune.data.patch_masking import PatchMasking
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits
from geotune.data.window_datasets import DEFAULT_AUGMENT, GridWindowDataset, RandomWindowDataset
from geotune.types import BandStatistics


@dataclass(frozen=True)
class DataModule:
    """The datasets of a training, with what was learned from the files.

    Attributes:
        train: random windows.
        val: windows on a grid.
        test: windows on a grid; None without a test split.
        statistics: band statistics of the training scenes.
        class_counts: number of labels of each class, by split.
        label_unit: what is counted: `pixel`, `object` or `image`.
        label_mean_std: mean and standard deviation of regression labels of the training split;
            None for other labels.
        notes: messages for the user.
        gsd_m: median pixel size of the training scenes in metres, if known.
        wavelengths: of bands in micrometres, if the files state them.
        splits: names of the scenes of each split.
        train_grid: windows on a grid over the training scenes.
        distances_m: distance in metres between the nearest scenes of two splits, by names such as
            `train-test`; only for georeferenced scenes.
        skipped: the error of each sample that `train.skip_bad_samples` skipped.
    """

    train: RandomWindowDataset
    val: GridWindowDataset
    test: GridWindowDataset | None
    statistics: BandStatistics
    class_counts: dict[str, list[int]]
    label_unit: str
    label_mean_std: tuple[float, float] | None
    notes: list[str]
    gsd_m: float | None
    wavelengths: dict[str, float]
    splits: dict[str, list[str]]
    train_grid: GridWindowDataset
    distances_m: dict[str, float]
    skipped: tuple[str, ...] = ()

    @property
    def window(self) -> int:
        """Size of the windows in pixels."""
        return self.train.window


def build_datamodule(
    splits: Splits,
    *,
    window: int | None,
    threads: int | None = None,
    progress: Callable[[Scene], None] | None = None,
    allow_overlap: bool = False,
    metadata: Sequence[str] = (),
    **options: Any,
) -> DataModule:
    """Read and check all scenes, and make the datasets.

    `options` are those of `datamodule_from_scan`. Raises `GeotuneError` for damaged files and for
    the first error that a check finds.
    """
    scanned = scan_splits(
        splits, window=window, metadata=metadata, threads=threads, progress=progress
    )
    issues = run_checks(scanned, allow_overlap=allow_overlap)
    raise_on_error(issues)
    notes = [issue.text for issue in issues]
    return datamodule_from_scan(scanned, metadata=metadata, notes=notes, **options)


def datamodule_from_scan(
    scanned: ScannedData,
    *,
    samples: int | None = None,
    rare_class_fraction: float = 0.5,
    augment: AugmentOptions = DEFAULT_AUGMENT,
    brightness: float = 0.0,
    seed: int = 0,
    metadata: Sequence[str] = (),
    replacement: bool = True,
    masking: PatchMasking | None = None,
    notes: Sequence[str] = (),
) -> DataModule:
    """Make the datasets of scanned scenes; the options are those of `RandomWindowDataset`.

    Raises `GeotuneError` for a band without a valid pixel in the training scenes.
    """
    splits, scans, window = scanned.splits, scanned.scans, scanned.window
    train = splits["train"]
    statistics = band_statistics(train, scans["train"])
    gsds_m = [scene.raster.gsd_m for scene in train if scene.raster.gsd_m is not None]

    def grid(split: str) -> GridWindowDataset:
        return GridWindowDataset(
            splits[split], scans[split], window, metadata=metadata, masking=masking
        )

    return DataModule(
        train=RandomWindowDataset(
            train,
            scans["train"],
            window,
            samples=samples,
            rare_class_fraction=rare_class_fraction,
            augment=augment,
            brightness=brightness,
            band_std=statistics.std,
            seed=seed,
            metadata=metadata,
            replacement=replacement,
            masking=masking,
        ),
        val=grid("val"),
        test=grid("test") if splits["test"] else None,
        statistics=statistics,
        class_counts={split: scanned.class_counts(split) for split in splits},
        label_unit=train[0].labels.label_unit,
        label_mean_std=label_statistics(scans["train"]),
        notes=list(notes),
        gsd_m=float(np.median(gsds_m)) if gsds_m else None,
        wavelengths=dict(train[0].raster.wavelengths),
        splits={split: [scene.name for scene in scenes] for split, scenes in splits.items()},
        train_grid=grid("train"),
        distances_m=scanned.distances_m,
    )
