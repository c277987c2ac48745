"""The content of a report as plain values, independent of HTML and of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotune.report import number_format as fmt
from geotune.utils.colors import Color

SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Example:
    """One validation window with its label and prediction, as pictures.

    Attributes:
        name: scene and position, for display.
        caption: the scores of the window.
        pictures: `(H, W, 3)` uint8 by title, from `TaskPage.draw`.
    """

    name: str
    caption: str
    pictures: Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class SplitSummary:
    """The scenes and labels of one split.

    Attributes:
        scenes: names of the scenes or chips.
        class_counts: number of labelled pixels, objects or images per class.
        ignored_pixels: number of pixels without a label or without data.
    """

    scenes: Sequence[str]
    class_counts: Sequence[int]
    ignored_pixels: int = 0


@dataclass(frozen=True)
class BackboneSummary:
    """Name, licence and origin of the pretrained weights."""

    name: str
    licence: str
    source: str
    random_weights: bool = False


@dataclass(frozen=True)
class Cost:
    """Time and memory of the run.

    Attributes:
        peak_memory_kind: `GPU memory` or `process memory`.
        predicted_memory_bytes: estimated peak of the tensors of a step.
        tensor_memory_bytes: measured peak of the same tensors.
        reserved_memory_bytes: peak reserved by the GPU allocator.
    """

    device: str
    seconds_total: float
    seconds_per_epoch: float
    trained_parameters: int
    total_parameters: int
    peak_memory_bytes: int | None = None
    peak_memory_kind: str = "memory"
    predicted_memory_bytes: int | None = None
    tensor_memory_bytes: int | None = None
    reserved_memory_bytes: int | None = None
    adapter_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The content of `report.html`.

    Attributes:
        classes: class names, or the name of the one predicted quantity.
        task: a key of `registry.TASK_PAGES`.
        label_unit: `pixel`, `image` or `object`.
        value_unit: unit of a predicted quantity.
        history: one mapping per epoch, with `epoch`, `train/loss`, `val/loss`, `lr` and the task's
            metrics, such as `val/miou`; missing and NaN values are not plotted.
        metrics: the task's metrics by split (`val`, `test`) and name.
        confusion: `(K, K)` counts by split; rows are labels, columns predictions.
        details: further results of the task by name and split, such as `pairs`.
        best: the best validation windows, best first.
        worst: the worst validation windows, worst first.
        data: the non-empty splits `train`, `val` and `test`.
        best_epoch: the epoch whose weights were kept, numbered as in `history`.
        unit: `scene`, `chip` or `image`.
        regions: metrics by region of the last evaluated split.
        gap: metrics in regions that were `seen` and `unseen` in training, which scenes of seen
            regions were measured (`seen_in`), and confidence `intervals` of the difference by
            metric; None if regions were not compared.
        distances_m: distance between the nearest scenes of two splits, such as `train-test`.
        skipped: one message per sample that was skipped.
        shown_bands: bands displayed as red, green and blue.
    """

    name: str
    method: str
    decoder: str
    classes: Sequence[str]
    colors: Sequence[Color]
    backbone: BackboneSummary
    cost: Cost
    recipe_yaml: str
    task: str = "segment"
    label_unit: str = "pixel"
    value_unit: str = ""
    history: Sequence[Mapping[str, float]] = ()
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    confusion: Mapping[str, Sequence[Sequence[int]]] = field(default_factory=dict)
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    best: Sequence[Example] = ()
    worst: Sequence[Example] = ()
    data: Mapping[str, SplitSummary] = field(default_factory=dict)
    best_epoch: int | None = None
    unit: str = "scene"
    regions: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    gap: Mapping[str, Any] | None = None
    distances_m: Mapping[str, float] = field(default_factory=dict)
    skipped: Sequence[str] = ()
    shown_bands: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    data_notes: Sequence[str] = ()
    notes: Sequence[str] = ()
    warnings: Sequence[str] = ()
    created: str = ""

    def __post_init__(self) -> None:
        """Raise `ValueError` if two attributes differ in the number of classes."""
        count = len(self.classes)
        if len(self.colors) != count:
            raise ValueError(f"{len(self.colors)} colours for {count} classes")
        for split, rows in self.confusion.items():
            if len(rows) != count or any(len(row) != count for row in rows):
                raise ValueError(f"the confusion matrix of {split} is not {count} x {count}")
        for name, split_data in self.data.items():
            if len(split_data.class_counts) != count:
                raise ValueError(f"class_counts of {name}: not {count} classes")


def evaluated_splits(report: Report) -> list[str]:
    """The splits that have metrics, test before validation."""
    return [
        split for split in ("test", "val") if split in report.metrics or split in report.confusion
    ]


def scenes_of(report: Report, split: str, kind: str) -> str:
    """The scenes of a split in words: `the held-out scene durban`, `5 scenes`."""
    if split not in report.data:
        return f"the {SPLIT_NAMES[split]} data"
    scenes = list(report.data[split].scenes)
    if len(scenes) == 1:
        return f"the {kind}{report.unit} {scenes[0]}"
    if len(scenes) <= 3:
        return f"the {kind}{report.unit}s {fmt.listing(scenes)}"
    return f"{'the ' if kind else ''}{len(scenes)} {kind}{report.unit}s"
