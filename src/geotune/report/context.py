"""What a report says, as plain values: whoever fills it in needs no HTML, the page no training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geotune.utils.colors import Color


@dataclass(frozen=True)
class Example:
    """One validation window, its label and what the model made of it, as pictures.

    Attributes:
        name: scene and position, as people should read it.
        caption: how well it went.
        pictures: `(H, W, 3)` uint8 by title, such as a task's `draw` makes them.
    """

    name: str
    caption: str
    pictures: Mapping[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class SplitSummary:
    """Training, validation or test data.

    Attributes:
        scenes: names of the scenes or chips.
        class_counts: what is labelled of each class, in the classes' order.
        ignored_pixels: pixels without a label or without data.
    """

    scenes: Sequence[str]
    class_counts: Sequence[int]
    ignored_pixels: int = 0


@dataclass(frozen=True)
class Backbone:
    """Where the frozen weights come from."""

    name: str
    licence: str
    source: str
    random_weights: bool = False


@dataclass(frozen=True)
class Cost:
    """What the run took.

    Attributes:
        peak_memory_kind: of what: `GPU memory`, `process memory`.
        predicted_memory_bytes: of a step's tensors.
        tensor_memory_bytes: what those really took, to compare with the prediction.
        reserved_memory_bytes: by the allocator of a GPU.
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
    """All that `report.html` shows.

    Attributes:
        classes: names of what the task tells apart, or of its one quantity.
        task: whose page in `tasks/registry.py` it is.
        label_unit: what is labelled: `pixel`, `image`, `object`.
        value_unit: in what a quantity is measured.
        history: one mapping an epoch, with `epoch`, `train/loss`, `val/loss`, `lr` and the task's
            metrics, such as `val/miou`; what is missing or NaN is left out of the curves.
        metrics: of each part (`val`, `test`), the task's metrics by name.
        confusion: of each part `(K, K)` counts; rows are labels, columns predictions.
        details: what else the task tells, by name and part, such as `pairs`.
        best: the best validation windows, best first.
        worst: the worst validation windows, worst first.
        data: the parts `train`, `val`, `test`, as far as there are any.
        best_epoch: the epoch whose weights were kept, counted as `history` counts.
        unit: what the data comes in: `scene` or `chip`.
        regions: metrics of each region of the part that is judged.
        gap: metrics in regions that were `seen` in training, in `unseen` ones, and which scenes of
            the former were measured (`seen_in`); `intervals` of the difference, of the metrics of
            which one is known; None where there is no such difference.
        distances_m: between the nearest scenes of two parts, `train-test`.
        skipped: what was wrong with each sample that was left out.
        shown_bands: the bands that the windows show as red, green and blue.
    """

    name: str
    method: str
    decoder: str
    classes: Sequence[str]
    colors: Sequence[Color]
    backbone: Backbone
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
        """Refuse a report whose parts speak of different numbers of classes."""
        count = len(self.classes)
        if len(self.colors) != count:
            raise ValueError(f"{len(self.colors)} colours for {count} classes")
        for part, rows in self.confusion.items():
            if len(rows) != count or any(len(row) != count for row in rows):
                raise ValueError(f"the confusion matrix of {part} is not {count} x {count}")
        for name, part_data in self.data.items():
            if len(part_data.class_counts) != count:
                raise ValueError(f"class_counts of {name} are not of {count} classes")
