"""From split scenes to the datasets of a training, with everything read and checked once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from geotune.data.acquisition import require_metadata
from geotune.data.augment import Augment
from geotune.data.dataset import PLAIN, GridWindows, TrainWindows
from geotune.data.scan import SceneScan, label_statistics, scan, statistics
from geotune.data.scene import Scene
from geotune.data.splits import Parts
from geotune.types import BandStatistics, GeotuneError


@dataclass(frozen=True)
class DataParts:
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
    """

    train: TrainWindows
    val: GridWindows
    test: GridWindows | None
    statistics: BandStatistics
    class_counts: dict[str, list[int]]
    unit: str
    numbers: tuple[float, float] | None
    notes: list[str]
    gsd_m: float | None
    wavelengths: dict[str, float]
    parts: dict[str, list[str]]

    @property
    def window(self) -> int:
        """Side of the windows in pixels."""
        return self.train.window


def prepare(
    parts: Parts,
    *,
    window: int | None,
    samples: int | None = None,
    focus: float = 0.5,
    augment: Augment = PLAIN,
    brightness: float = 0.0,
    seed: int = 0,
    metadata: Sequence[str] = (),
    threads: int | None = None,
    progress: Callable[[Scene], None] | None = None,
) -> DataParts:
    """Read and check all scenes of `parts` (see `scan`) and make their datasets.

    Without a `window` it is the side of the largest scene. `progress` is called with each scene
    that was read. Raises `GeotuneError` for faults in the
    files, for a part without any label, and where a file does not say what `metadata` asks.
    """
    scenes = [scene for part in parts.values() for scene in part]
    require_metadata({scene.name: scene.raster for scene in scenes}, metadata)
    window = fitting_window(scenes, window)
    results = iter(scan(scenes, window, threads=threads, progress=progress))
    scans = {part: [next(results) for _ in members] for part, members in parts.items()}
    unit = scenes[0].labels.unit
    counts = {part: _class_counts(members, scans[part]) for part, members in parts.items()}
    for part, members in parts.items():
        if members and not sum(counts[part]):
            raise GeotuneError(
                f"data.split.{part}: none of its scenes has a labelled {unit} with data "
                f"({', '.join(scene.name for scene in members[:10])}); look at their labels and "
                "at data.nodata, data.ignore_values and data.unlabelled"
            )
    found = statistics(parts["train"], scans["train"])
    sides = [scene.raster.gsd_m for scene in parts["train"]]
    known = [side for side in sides if side is not None]

    def grid(part: str) -> GridWindows:
        return GridWindows(parts[part], scans[part], window, metadata=metadata)

    return DataParts(
        train=TrainWindows(
            parts["train"],
            scans["train"],
            window,
            samples=samples,
            focus=focus,
            augment=augment,
            brightness=brightness,
            spread=found.std,
            seed=seed,
            metadata=metadata,
        ),
        val=grid("val"),
        test=grid("test") if parts["test"] else None,
        statistics=found,
        class_counts=counts,
        unit=unit,
        numbers=label_statistics(scans["train"]),
        notes=_notes(parts, scans, counts),
        gsd_m=float(np.median(known)) if known else None,
        wavelengths=dict(parts["train"][0].raster.wavelengths),
        parts={part: [scene.name for scene in members] for part, members in parts.items()},
    )


def fitting_window(scenes: Sequence[Scene], window: int | None) -> int:
    """The side of windows. Raises `GeotuneError` where one would cut what has to stay whole."""
    largest = max(scenes, key=lambda scene: max(scene.shape))
    if window is None:
        return max(largest.shape)
    if largest.labels.whole and window < max(largest.shape):
        height, width = largest.shape
        raise GeotuneError(
            f"{largest.raster.path}: is {height}x{width} pixels, larger than data.window {window}; "
            "a label is of the whole image: raise data.window, or leave it out"
        )
    return window


def _class_counts(scenes: Sequence[Scene], scans: Sequence[SceneScan]) -> list[int]:
    if not scenes:
        return []
    total = np.sum([result.class_counts for result in scans], axis=0)
    return [int(count) for count in total]


def _notes(
    parts: Parts, scans: dict[str, list[SceneScan]], counts: dict[str, list[int]]
) -> list[str]:
    notes: list[str] = []
    for part, members in parts.items():
        for scene, found in zip(members, scans[part], strict=True):
            notes += scene.labels.notes
            if not found.pixels:
                notes.append(f"{scene.raster.path}: no pixel has data, so it is left out")
            if scene.labels.overlaps is False:
                notes.append(f"{scene.labels.path}: none of its labels lies in scene {scene.name}")
    for part, members in parts.items():
        if members:
            classes = members[0].labels.classes
            absent = [name for name, count in zip(classes, counts[part], strict=True) if not count]
            if absent:
                unit = members[0].labels.unit
                notes.append(f"no {unit} of {', '.join(absent)} in the {part} part")
    return list(dict.fromkeys(notes))  # what is true of all files is said once
