"""DOTA-style average precision of oriented and horizontal boxes, and counts, over all images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geotune.boxes.structures import Detections, GroundTruthObjects
from geotune.metrics.average_precision import Curve, Interpolation, average_precision
from geotune.metrics.matching import FALSE, IGNORED, match_boxes
from geotune.metrics.state import Accumulator, MetricState

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())


@dataclass(frozen=True)
class Counts:
    """Detections that found an object, detections that did not, and objects not found."""

    true: int
    false: int
    missed: int


class DetectionMetrics(nn.Module):
    """Average precision of all images seen since the last `reset`.

    Matching is that of `match_boxes`: `difficult` objects are neither found nor missed, and no
    detection is too many. Several processes give the figures of all images together; what computes
    has to be called by each of them.
    """

    def __init__(self, classes: Sequence[str], interpolation: Interpolation = "area") -> None:
        """`classes` by index; `interpolation` as `Curve.average` takes it."""
        super().__init__()
        self.classes = tuple(classes)
        self.interpolation = interpolation
        nothing = np.zeros(0, dtype=np.int64)
        lists: dict[str, NDArray[Any]] = {
            "scores": np.zeros(0, dtype=np.float32),
            "classes": nothing,
            "found": nothing.reshape(0, len(THRESHOLDS)),
        }
        self.tally = Accumulator(
            MetricState({"objects": np.zeros(len(self.classes), dtype=np.int64)}, lists)
        )

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of what `compute` gives."""
        each = [f"{figure}/{name}" for figure in ("ap50", "ap") for name in self.classes]
        return ("ap50", "ap75", "ap", *each)

    @torch.no_grad()
    def update(
        self, detections: Sequence[Detections], objects: Sequence[GroundTruthObjects]
    ) -> None:
        """Count images; a whole image at a time."""
        for found, there in zip(detections, objects, strict=True):
            counted = there.classes[~there.ignored()].cpu()
            objects_by_class = torch.bincount(counted, minlength=len(self.classes)).numpy()
            lists = {
                "scores": found.scores.float().numpy(force=True),
                "classes": found.classes.numpy(force=True),
                "found": match_boxes(found, there, THRESHOLDS),
            }
            self.tally.add(MetricState({"objects": objects_by_class}, lists))

    def compute(self) -> dict[str, float]:
        """`ap50`, `ap75` and `ap` (the mean over IoU 0.5, 0.55, .. 0.95), and by class.

        Classes without an object that counts are NaN and not in the means.
        """
        return self.of(self.tally.together())

    def parts(self) -> MetricState:
        """How many `objects` each class has, `(K)`, and of every detection what it is.

        Its `scores` and `classes` `(N)`, and what it `found` at each of `THRESHOLDS`, `(N, T)`, as
        `match_boxes` says it.
        """
        return self.tally.parts()

    def of(self, parts: MetricState) -> dict[str, float]:
        """The figures of such detections."""
        table = np.array([self._averages(parts, k) for k in range(len(self.classes))])
        table = table.reshape(len(self.classes), len(THRESHOLDS))
        ap50, ap75, ap = table[:, 0], table[:, THRESHOLDS.index(0.75)], table.mean(axis=1)
        values = {"ap50": _mean(ap50), "ap75": _mean(ap75), "ap": _mean(ap)}
        values |= {f"ap50/{n}": float(v) for n, v in zip(self.classes, ap50, strict=True)}
        return values | {f"ap/{n}": float(v) for n, v in zip(self.classes, ap, strict=True)}

    def curves(self, iou: float = 0.5) -> dict[str, Curve]:
        """The curve of each class at one of `THRESHOLDS`."""
        parts, column = self.tally.together(), THRESHOLDS.index(iou)
        curves = {}
        for k, name in enumerate(self.classes):
            scores, found = _of_class(parts, k)
            curves[name] = curve_of(scores, found[:, column], int(parts.sums["objects"][k]))
        return curves

    def counts(self, score: float, iou: float = 0.5) -> dict[str, Counts]:
        """True, false and missed of each class among detections with at least that score."""
        result = {}
        for name, curve in self.curves(iou).items():
            enough = int(np.sum(curve.scores >= np.float32(score)))
            true, false = ((int(n[enough - 1]) if enough else 0) for n in (curve.true, curve.false))
            result[name] = Counts(true, false, curve.objects - true)
        return result

    def reset(self) -> None:
        """Forget all images."""
        self.tally.reset()

    def _averages(self, parts: MetricState, k: int) -> list[float]:
        """The average precision of a class by IoU threshold.

        Only where an object is found is the curve followed: a table of many runs asks for this a
        thousand times of each, and most of what a detector says is false.
        """
        scores, found = _of_class(parts, k)
        objects = int(parts.sums["objects"][k])
        told = np.flatnonzero((found != FALSE).any(axis=1))
        told = told[np.argsort(-scores[told])]
        entered = np.searchsorted(np.sort(-scores), -scores[told], side="right")
        averages = []
        for column in found[told].T:
            hits, ignored = entered[column >= 0], entered[column == IGNORED]
            true = np.searchsorted(hits, hits, side="right")  # those of one score enter together
            false = hits - true - np.searchsorted(ignored, hits, side="right")
            averages.append(average_precision(true, false, objects, self.interpolation))
        return averages


def curve_of(scores: NDArray[np.float32], found: NDArray[np.int64], objects: int) -> Curve:
    """The curve of detections `(N)` by what `match_boxes` says of each at one threshold `(N)`."""
    counts = found != IGNORED
    return Curve.of(scores[counts], found[counts] != FALSE, objects)


def _of_class(parts: MetricState, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores `(N)` of a class's detections, and what they found `(N, T)`."""
    of_class = parts.lists["classes"] == k
    return parts.lists["scores"][of_class], parts.lists["found"][of_class]


def _mean(values: NDArray[np.float64]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else math.nan
