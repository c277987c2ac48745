"""F1 of points matched within a distance, and counting errors."""

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
CANDIDATE_THRESHOLDS = tuple(np.linspace(0.01, 0.99, 99).round(2).tolist())
"""Score thresholds to choose from. The steps are small because after a short training scores lie
close together, and a step of 0.05 can halve the number of detections."""


class PointMetrics(nn.Module):
    """Metrics of objects that are labelled by their location only, such as trees.

    Detections with at least the threshold's score are matched one to one with objects of their
    class within `radius_m` metres (`match_points`). Boxes are matched by their centres; `difficult`
    is not used. `compute` is a collective over processes: every process must call it.
    """

    def __init__(
        self, classes: Sequence[str], radius_m: float, threshold: float | None = None
    ) -> None:
        """Without `threshold`, use the one of `CANDIDATE_THRESHOLDS` with the highest F1.

        Choosing the threshold on the evaluated images makes the result optimistic: for a test, pass
        the threshold that was best in validation.
        """
        super().__init__()
        self.classes = tuple(classes)
        self.radius_m = radius_m
        self.thresholds = CANDIDATE_THRESHOLDS if threshold is None else (threshold,)
        levels, count = len(self.thresholds), len(self.classes)
        shapes = {
            "images": (),
            "there": (count,),
            "found": (levels, count),
            "true": (levels, count),
            **dict.fromkeys(("distances", "errors", "absolutes", "squares"), (levels,)),
        }
        self.accumulator = Accumulator(
            MetricState({name: np.zeros(shape) for name, shape in shapes.items()})
        )

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names that `compute` returns."""
        points = ("f1", "precision", "recall", "rmse_m", "threshold")
        counts = ("count_mae", "count_rmse", "count_bias")
        return (*points, *counts, *(f"f1/{name}" for name in self.classes))

    @torch.no_grad()
    def update(
        self,
        detections: Sequence[Detections],
        objects: Sequence[GroundTruthObjects],
        gsd_m: Sequence[float],
    ) -> None:
        """Add images; coordinates are in pixels of `gsd_m` metres."""
        for predicted, truth, metres in zip(detections, objects, gsd_m, strict=True):
            self.accumulator.add(
                self._image_state(
                    centres(predicted.boxes).double().numpy(force=True) * metres,
                    predicted.scores.float().numpy(force=True),
                    predicted.classes.numpy(force=True),
                    centres(truth.boxes).double().numpy(force=True) * metres,
                    truth.classes.numpy(force=True),
                )
            )

    def compute(self) -> dict[str, float]:
        """Metrics over all classes, and `f1/<class>`; NaN if undefined.

        `rmse_m` is the root mean squared distance of matched pairs. `count_mae`, `count_rmse` and
        `count_bias` are errors of the number of objects in an image, predicted minus labelled.
        """
        return self.compute_from(self.accumulator.gather())

    def state(self) -> MetricState:
        """Sums, by class `(K)` and threshold `(T)`.

        `images`; labelled points `there` `(K)`; detections `found` and of these `true` positives
        `(T, K)`; squared `distances` of matched pairs `(T)`; counting errors of the images: signed
        `errors`, `absolutes` and `squares` `(T)`.
        """
        return self.accumulator.state()

    def windows(self) -> list[MetricState]:
        """See `Metrics`."""
        return self.accumulator.states

    def compute_from(self, state: MetricState) -> dict[str, float]:
        """Metrics at the threshold with the highest F1."""
        candidates = [self._metrics_at(i, state.sums) for i in range(len(self.thresholds))]
        return max(candidates, key=lambda values: -1 if math.isnan(values["f1"]) else values["f1"])

    def reset(self) -> None:
        """Discard all images."""
        self.accumulator.reset()

    def _image_state(
        self,
        predicted: Floats,
        scores: NDArray[np.float32],
        predicted_classes: NDArray[np.int64],
        truth: Floats,
        truth_classes: NDArray[np.int64],
    ) -> MetricState:
        """The state of one image with points in metres, `(N, 2)` predicted and `(M, 2)` true."""
        count = len(self.thresholds)
        # A detection is kept at the thresholds whose index is below its level.
        levels = np.searchsorted(np.array(self.thresholds, np.float32), scores, "right")
        num_predicted, true, num_true = [], [], []
        distances = np.zeros(count)
        for k in range(len(self.classes)):
            mine, theirs = predicted_classes == k, truth_classes == k
            matched, squares = match_points_by_level(
                predicted[mine], levels[mine], truth[theirs], self.radius_m, count
            )
            true.append(matched)
            distances += squares
            num_predicted.append(_count_by_level(levels[mine], count))
            num_true.append(np.sum(theirs))
        errors = np.sum(num_predicted, axis=0) - len(truth)
        return MetricState(
            {
                "images": np.ones(()),
                "there": np.array(num_true, float),
                "found": np.stack(num_predicted, axis=1),
                "true": np.stack(true, axis=1),
                "distances": distances,
                "errors": errors,
                "absolutes": np.abs(errors),
                "squares": errors**2,
            }
        )

    def _metrics_at(self, level: int, sums: Arrays) -> dict[str, float]:
        labelled, predicted, true = sums["there"], sums["found"][level], sums["true"][level]
        images = float(sums["images"])
        values = {
            "f1": _ratio(2 * true.sum(), predicted.sum() + labelled.sum()),
            "precision": _ratio(true.sum(), predicted.sum()),
            "recall": _ratio(true.sum(), labelled.sum()),
            "rmse_m": math.sqrt(_ratio(sums["distances"][level], true.sum())),
            "threshold": self.thresholds[level],
            "count_mae": _ratio(sums["absolutes"][level], images),
            "count_rmse": math.sqrt(_ratio(sums["squares"][level], images)),
            "count_bias": _ratio(sums["errors"][level], images),
        }
        by_class = zip(self.classes, true, predicted, labelled, strict=True)
        return values | {f"f1/{name}": _ratio(2 * t, p + n) for name, t, p, n in by_class}


def _count_by_level(levels: NDArray[np.int64], count: int) -> Floats:
    """Number of points at each of `count` levels, `(count,)`."""
    numbers: Floats = np.sum(levels[:, None] > np.arange(count), axis=0, dtype=float)
    return numbers


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator) / float(denominator) if denominator else math.nan
