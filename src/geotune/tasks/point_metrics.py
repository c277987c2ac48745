"""F1 of points within a distance, and the error of their count."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from geotune.boxes.detections import Detections, Objects
from geotune.boxes.oriented import centres
from geotune.tasks.matching import match_points
from geotune.tasks.processes import gathered

Floats = NDArray[np.float64]
CANDIDATES = tuple(np.linspace(0.05, 0.95, 19).round(2).tolist())


@dataclass(frozen=True)
class _Image:
    """Points in metres, found and there."""

    found: Floats
    scores: NDArray[np.float32]
    found_classes: NDArray[np.int64]
    truth: Floats
    truth_classes: NDArray[np.int64]


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
        self.threshold = threshold
        self.images: list[_Image] = []

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of what `compute` gives."""
        figures = ("f1", "precision", "recall", "rmse_m", "threshold")
        counts = ("count_mae", "count_rmse", "count_bias")
        return (*figures, *counts, *(f"f1/{name}" for name in self.classes))

    @torch.no_grad()
    def update(
        self, detections: Sequence[Detections], objects: Sequence[Objects], gsd_m: Sequence[float]
    ) -> None:
        """Count images in pixels, whose pixels are so many metres wide."""
        for found, there, metres in zip(detections, objects, gsd_m, strict=True):
            self.images.append(
                _Image(
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
        return self.of(gathered(self.images))

    def of(self, images: Sequence[_Image]) -> dict[str, float]:
        """The figures of some images, without any other process."""
        if self.threshold is not None:
            return self._at(self.threshold, images)
        each = [self._at(threshold, images) for threshold in CANDIDATES]
        return max(each, key=lambda values: -1 if math.isnan(values["f1"]) else values["f1"])

    def reset(self) -> None:
        """Forget all images."""
        self.images = []

    def _at(self, threshold: float, images: Sequence[_Image]) -> dict[str, float]:
        found, there, true = (np.zeros(len(self.classes)) for _ in range(3))
        distances, errors = [np.zeros(0)], []
        for image in images:
            enough = image.scores >= np.float32(threshold)
            errors.append(int(enough.sum()) - len(image.truth))
            for k in range(len(self.classes)):
                mine = image.found[enough & (image.found_classes == k)]
                theirs = image.truth[image.truth_classes == k]
                i, j = match_points(mine, theirs, self.radius_m)
                found[k], there[k], true[k] = (
                    found[k] + len(mine), there[k] + len(theirs), true[k] + len(i)
                )  # fmt: skip
                distances.append(np.hypot(*(mine[i] - theirs[j]).T))
        apart, error = np.concatenate(distances), np.array(errors, dtype=np.float64)
        values = {
            "f1": _ratio(2 * true.sum(), found.sum() + there.sum()),
            "precision": _ratio(true.sum(), found.sum()),
            "recall": _ratio(true.sum(), there.sum()),
            "rmse_m": math.sqrt(_ratio(np.sum(apart**2), len(apart))),
            "threshold": threshold,
            "count_mae": _ratio(np.sum(abs(error)), len(error)),
            "count_rmse": math.sqrt(_ratio(np.sum(error**2), len(error))),
            "count_bias": _ratio(np.sum(error), len(error)),
        }
        each = zip(self.classes, true, found, there, strict=True)
        return values | {f"f1/{name}": _ratio(2 * t, f + n) for name, t, f, n in each}


def _ratio(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else math.nan
