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

from geotune.boxes.detections import Detections, Objects
from geotune.tasks.average_precision import Curve, Interpolation
from geotune.tasks.matching import FALSE, IGNORED, match_boxes
from geotune.tasks.processes import gathered

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())


@dataclass(frozen=True)
class Counts:
    """Detections that found an object, detections that did not, and objects not found."""

    true: int
    false: int
    missed: int


@dataclass(frozen=True)
class _Image:
    """What is kept of an image: scores and classes `(N)`, findings `(N, T)`, objects by class."""

    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    found: NDArray[np.int64]
    objects: NDArray[np.int64]


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
        self.images: list[_Image] = []

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of what `compute` gives."""
        each = [f"{figure}/{name}" for figure in ("ap50", "ap") for name in self.classes]
        return ("ap50", "ap75", "ap", *each)

    @torch.no_grad()
    def update(self, detections: Sequence[Detections], objects: Sequence[Objects]) -> None:
        """Count images; a whole image at a time."""
        for found, there in zip(detections, objects, strict=True):
            counted = there.classes[~there.ignored()].cpu()
            self.images.append(
                _Image(
                    found.scores.float().numpy(force=True),
                    found.classes.numpy(force=True),
                    match_boxes(found, there, THRESHOLDS),
                    torch.bincount(counted, minlength=len(self.classes)).numpy(),
                )
            )

    def compute(self) -> dict[str, float]:
        """`ap50`, `ap75` and `ap` (the mean over IoU 0.5, 0.55, .. 0.95), and by class.

        Classes without an object that counts are NaN and not in the means.
        """
        curves = self._curves()
        table = np.array([[c.average(self.interpolation) for c in row] for row in curves])
        table = table.reshape(len(self.classes), len(THRESHOLDS))
        ap50, ap75, ap = table[:, 0], table[:, THRESHOLDS.index(0.75)], table.mean(axis=1)
        values = {"ap50": _mean(ap50), "ap75": _mean(ap75), "ap": _mean(ap)}
        values |= {f"ap50/{n}": float(v) for n, v in zip(self.classes, ap50, strict=True)}
        return values | {f"ap/{n}": float(v) for n, v in zip(self.classes, ap, strict=True)}

    def curves(self, iou: float = 0.5) -> dict[str, Curve]:
        """The curve of each class at one of `THRESHOLDS`."""
        rows = self._curves([iou])
        return {name: row[0] for name, row in zip(self.classes, rows, strict=True)}

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
        self.images = []

    def _curves(self, ious: Sequence[float] = THRESHOLDS) -> list[list[Curve]]:
        """By class, then by IoU threshold."""
        images = gathered(self.images)
        scores = _joined([image.scores for image in images], (0,))
        classes = _joined([image.classes for image in images], (0,))
        found = _joined([image.found for image in images], (0, len(THRESHOLDS)))
        objects = sum((image.objects for image in images), np.zeros(len(self.classes), np.int64))
        return [
            [
                Curve.of(scores[counts], column[counts] != FALSE, int(objects[k]))
                for column in (found[:, THRESHOLDS.index(iou)] for iou in ious)
                for counts in [(classes == k) & (column != IGNORED)]
            ]
            for k in range(len(self.classes))
        ]


def _joined(parts: list[NDArray[Any]], empty: tuple[int, ...]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(empty)


def _mean(values: NDArray[np.float64]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else math.nan
