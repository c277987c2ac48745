"""F1 of points within a distance, and the error of their count."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geotune.boxes.oriented import centres
from geotune.boxes.structures import Detections, GroundTruthObjects
from geotune.metrics.matching import match_points_by_level
from geotune.metrics.state import Accumulator, Arrays, MetricState

Floats = NDArray[np.float64]
CANDIDATES = tuple(np.linspace(0.01, 0.99, 99).round(2).tolist())
"""Thresholds that are tried. Scores of a short training lie close together: there a twentieth more
or less can halve the number of what is found."""


class PointMetrics(nn.Module):
    """Metrics of objects that are known by their place only, such as trees.

    Detections with at least the threshold's score are matched with objects of their class one to
    one within `radius_m` metres: as many as can be, and of those choices the nearest
    (`match_points`). Of boxes their centres count; `difficult` is not known to points. Over several
    processes the figures are those of all images; each of them has to call what computes.
    """

    def __init__(
        self, classes: Sequence[str], radius_m: float, threshold: float | None = None
    ) -> None:
        """Without a `threshold` that of `CANDIDATES` with the highest F1 is taken.

        The best threshold of the images that a figure is of flatters it: for a test, give the one
        that was best in validation.
        """
        super().__init__()
        self.classes = tuple(classes)
        self.radius_m = radius_m
        self.thresholds = CANDIDATES if threshold is None else (threshold,)
        levels, count = len(self.thresholds), len(self.classes)
        shapes = {
            "images": (),
            "there": (count,),
            "found": (levels, count),
            "true": (levels, count),
            **dict.fromkeys(("distances", "errors", "absolutes", "squares"), (levels,)),
        }
        self.tally = Accumulator(
            MetricState({name: np.zeros(shape) for name, shape in shapes.items()})
        )

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of what `compute` gives."""
        figures = ("f1", "precision", "recall", "rmse_m", "threshold")
        counts = ("count_mae", "count_rmse", "count_bias")
        return (*figures, *counts, *(f"f1/{name}" for name in self.classes))

    @torch.no_grad()
    def update(
        self,
        detections: Sequence[Detections],
        objects: Sequence[GroundTruthObjects],
        gsd_m: Sequence[float],
    ) -> None:
        """Count images in pixels, whose pixels are so many metres wide."""
        for found, there, metres in zip(detections, objects, gsd_m, strict=True):
            self.tally.add(
                self._count(
                    centres(found.boxes).double().numpy(force=True) * metres,
                    found.scores.float().numpy(force=True),
                    found.classes.numpy(force=True),
                    centres(there.boxes).double().numpy(force=True) * metres,
                    there.classes.numpy(force=True),
                )
            )

    def compute(self) -> dict[str, float]:
        """Figures over all classes, and `f1/<class>`.

        `rmse_m` is of the distances of what was matched. `count_mae`, `count_rmse` and `count_bias`
        are of the difference, found less there, in an image; NaN is what nothing was counted for.
        """
        return self.of(self.tally.together())

    def parts(self) -> MetricState:
        """Sums of points, by threshold where it decides.

        `images`; points that are `there` `(K)`; `found` and of them `true` `(T, K)`; squared
        `distances` of what was matched `(T)`; `errors` of the images' counts, `absolutes` and
        `squares` of them `(T)`.
        """
        return self.tally.parts()

    def of(self, parts: MetricState) -> dict[str, float]:
        """The figures of such sums, at the threshold with the highest F1."""
        each = [self._at(level, parts.sums) for level in range(len(self.thresholds))]
        return max(each, key=lambda values: -1 if math.isnan(values["f1"]) else values["f1"])

    def reset(self) -> None:
        """Forget all images."""
        self.tally.reset()

    def _count(
        self,
        found: Floats,
        scores: NDArray[np.float32],
        found_classes: NDArray[np.int64],
        truth: Floats,
        truth_classes: NDArray[np.int64],
    ) -> MetricState:
        """An image with points in metres, `(N, 2)` found and `(M, 2)` there."""
        count = len(self.thresholds)
        # What is found at a threshold: all whose level is greater than its place among them.
        levels = np.searchsorted(np.array(self.thresholds, np.float32), scores, "right")
        found_by_class, true, there = [], [], []
        distances = np.zeros(count)
        for k in range(len(self.classes)):
            mine, theirs = found_classes == k, truth_classes == k
            matched, squares = match_points_by_level(
                found[mine], levels[mine], truth[theirs], self.radius_m, count
            )
            true.append(matched)
            distances += squares
            found_by_class.append(_at_least(levels[mine], count))
            there.append(np.sum(theirs))
        errors = np.sum(found_by_class, axis=0) - len(truth)
        return MetricState(
            {
                "images": np.ones(()),
                "there": np.array(there, float),
                "found": np.stack(found_by_class, axis=1),
                "true": np.stack(true, axis=1),
                "distances": distances,
                "errors": errors,
                "absolutes": np.abs(errors),
                "squares": errors**2,
            }
        )

    def _at(self, level: int, sums: Arrays) -> dict[str, float]:
        there, found, true = sums["there"], sums["found"][level], sums["true"][level]
        images = float(sums["images"])
        values = {
            "f1": _ratio(2 * true.sum(), found.sum() + there.sum()),
            "precision": _ratio(true.sum(), found.sum()),
            "recall": _ratio(true.sum(), there.sum()),
            "rmse_m": math.sqrt(_ratio(sums["distances"][level], true.sum())),
            "threshold": self.thresholds[level],
            "count_mae": _ratio(sums["absolutes"][level], images),
            "count_rmse": math.sqrt(_ratio(sums["squares"][level], images)),
            "count_bias": _ratio(sums["errors"][level], images),
        }
        each = zip(self.classes, true, found, there, strict=True)
        return values | {f"f1/{name}": _ratio(2 * t, f + n) for name, t, f, n in each}


def _at_least(levels: NDArray[np.int64], count: int) -> Floats:
    """How many are on each of `count` levels, `(count,)`."""
    numbers: Floats = np.sum(levels[:, None] > np.arange(count), axis=0, dtype=float)
    return numbers


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else math.nan
