"""From split scenes to the datasets of a training, with everything read and checked once."""

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
from geotune.data.scenes.scene import Scene
from geotune.data.splits.base import Splits
from geotune.data.window_datasets import DEFAULT_AUGMENT, GridWindowDataset, RandomWindowDataset
from geotune.types import BandStatistics


@dataclass(frozen=True)
class DataModule:
    """What a training reads.

    Attributes:
        train: random windows.
        val: a grid of windows.
        test: a grid of windows; None where the split has no test part.
        statistics: of the training scenes' bands.
        class_counts: what is labelled of each class, in `unit`s, by part.
        unit: what is counted: `pixel`, `object`, `image`.
        numbers: mean and standard deviation of the numbers in the training labels; None where
            they hold none.
        notes: what a user should know.
        gsd_m: side of a pixel of the training scenes in metres (their median), where known.
        wavelengths: of bands in micrometres, where the files say them.
        parts: names of the scenes in each part.
        train_grid: the training scenes by a grid of windows, as the other parts are.
        distances_m: between the nearest scenes of two parts, `train-test`; without those of which
            the files do not say where they lie.
        skipped: what was wrong with each sample that `train.skip_bad_samples` left out.
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
        """Side of the windows in pixels."""
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
    """Read and check all scenes of `parts` and make their datasets.

    See `scan_splits`, `check` and, for the `options`, `datasets`. Raises `GeotuneError` for what a
    check calls an error.
    """
    examined = scan_splits(
        splits, window=window, metadata=metadata, threads=threads, progress=progress
    )
    findings = run_checks(examined, allow_overlap=allow_overlap)
    raise_on_error(findings)
    notes = [one.text for one in findings]
    return datamodule_from_scan(examined, metadata=metadata, notes=notes, **options)


def datamodule_from_scan(
    scanned: ScannedData,
    *,
    samples: int | None = None,
    rare_class_fraction: float = 0.5,
    augment: AugmentOptions = DEFAULT_AUGMENT,
    brightness: float = 0.0,
    seed: int = 0,
    metadata: Sequence[str] = (),
    notes: Sequence[str] = (),
) -> DataModule:
    """The datasets of scenes that were examined.

    Raises `GeotuneError` for a band without any pixel with data.
    """
    parts, scans, window = scanned.splits, scanned.scans, scanned.window
    found = band_statistics(parts["train"], scans["train"])
    sides = [scene.raster.gsd_m for scene in parts["train"]]
    known = [side for side in sides if side is not None]

    def grid(part: str) -> GridWindowDataset:
        return GridWindowDataset(parts[part], scans[part], window, metadata=metadata)

    return DataModule(
        train=RandomWindowDataset(
            parts["train"],
            scans["train"],
            window,
            samples=samples,
            rare_class_fraction=rare_class_fraction,
            augment=augment,
            brightness=brightness,
            band_std=found.std,
            seed=seed,
            metadata=metadata,
        ),
        val=grid("val"),
        test=grid("test") if parts["test"] else None,
        statistics=found,
        class_counts={part: scanned.class_counts(part) for part in parts},
        label_unit=parts["train"][0].labels.label_unit,
        label_mean_std=label_statistics(scans["train"]),
        notes=list(notes),
        gsd_m=float(np.median(known)) if known else None,
        wavelengths=dict(parts["train"][0].raster.wavelengths),
        splits={part: [scene.name for scene in members] for part, members in parts.items()},
        train_grid=grid("train"),
        distances_m=scanned.distances_m,
    )
