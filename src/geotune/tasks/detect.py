"""Detection: objects as boxes with a class, or as points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from geotune.boxes.detector_output import DetectorOutput
from geotune.boxes.oriented import HORIZONTAL, ORIENTED
from geotune.boxes.structures import Detections, GroundTruthObjects
from geotune.errors import GeotuneError
from geotune.metrics.average_precision import Curve
from geotune.metrics.detection_metrics import DetectionMetrics, curve_of
from geotune.metrics.point_metrics import PointMetrics
from geotune.metrics.state import MetricState

Boxes = Literal["horizontal", "oriented", "points"]
Scores = Mapping[str, float | None]
"""By class the least score of what counts; None where none is known, and nothing counts."""
Targets = Sequence[Mapping[str, Tensor]]
"""Of each image `boxes` `(M, D)`, `labels` `(M)` and `difficult` `(M)`."""

SURE = 0.5
"""A score from which on a detection where no object is counts against a window."""
EXAMPLE_OBJECTS = 32
"""In a window of which only shapes count."""
CURVE_POINTS = 200
"""Of a curve, at most, that a report is given."""


class Detect:
    """Loss, metrics and reading of `DetectorOutput` against objects.

    What has to be learnt is computed by the detector itself, which knows what it sampled; here it
    is summed.
    """

    lower_is_better: ClassVar[tuple[str, ...]] = ("rmse_m", "count_mae", "count_rmse")
    product: ClassVar[str] = "objects"

    def __init__(
        self,
        classes: Sequence[str],
        boxes: Boxes = "horizontal",
        match_radius_m: float = 3.0,
        pixel_m: float | None = None,
    ) -> None:
        """Points are learnt as horizontal boxes and judged by their middles.

        One is found by a detection within `radius_m` metres of it; `pixel_m` are metres a pixel.
        """
        self.classes = tuple(classes)
        self.boxes = boxes
        self.match_radius_m = match_radius_m
        self.pixel_m = pixel_m
        self.least: Scores | None = None

    def judged_from(self, least: Scores) -> Detect:
        """The same with scores that a validation chose, so that test data does not choose them."""
        task = copy(self)
        task.least = least
        return task

    @property
    def main_metric(self) -> str:
        """`ap50`, and of points `f1`."""
        return "f1" if self.boxes == "points" else "ap50"

    @property
    def num_outputs(self) -> int:
        """Classes of objects."""
        return len(self.classes)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of what `metrics().compute()` gives."""
        if self.boxes == "points":
            return PointMetrics(self.classes, self.match_radius_m).metric_names
        return DetectionMetrics(self.classes).metric_names

    def loss(self, outputs: DetectorOutput, targets: Targets) -> Tensor:
        """The sum of the detector's losses."""
        return torch.stack(list(outputs.losses.values())).sum()

    def metrics(self) -> DetectMetrics:
        """A fresh counter. Raises `GeotuneError` for points without a size of pixels."""
        return DetectMetrics(self)

    def score(self, outputs: DetectorOutput, targets: Targets) -> float:
        """F1 of one window at the score that suits it best.

        Where no object counts it is 0 for a detection that is `SURE`, and NaN without one.
        """
        [found], [objects] = outputs.detections, objects_of(targets)
        if objects.ignored().all():
            return 0.0 if (found.scores >= SURE).any() else math.nan
        metrics = self.metrics()
        # Not compute(): a window is scored by the process that has it, without any exchange.
        return metrics.best_of_one(found, objects)

    def answers(self, outputs: DetectorOutput) -> Sequence[Detections]:
        """What was found in each image."""
        return outputs.detections

    def predict(self, outputs: DetectorOutput) -> list[Tensor]:
        """What was found in each window: rows `(N, D + 2)` of box, score and class."""
        return [
            torch.cat([d.boxes, d.scores[:, None], d.classes[:, None].to(d.boxes.dtype)], dim=1)
            for d in outputs.detections
        ]

    def example(self, window: int) -> list[dict[str, Tensor]]:
        """Targets of a batch of one window, of which only shape and type count."""
        columns = ORIENTED if self.boxes == "oriented" else HORIZONTAL
        return [
            {
                "boxes": torch.zeros(EXAMPLE_OBJECTS, columns),
                "labels": torch.zeros(EXAMPLE_OBJECTS, dtype=torch.int64),
                "difficult": torch.zeros(EXAMPLE_OBJECTS, dtype=torch.bool),
            }
        ]


class DetectMetrics(nn.Module):
    """Average precision of boxes, or F1 and errors of counts of points."""

    def __init__(self, task: Detect) -> None:
        super().__init__()
        self.task = task
        self.boxes = DetectionMetrics(task.classes)
        self.points: PointMetrics | None = None
        if task.boxes == "points":
            if task.pixel_m is None:
                raise GeotuneError(
                    "task.pixel_m: points are judged in metres, and the files do not say how many "
                    "a pixel has; set it"
                )
            known = [score for score in (task.least or {}).values() if score is not None]
            self.points = PointMetrics(task.classes, task.match_radius_m, min(known, default=None))

    @torch.no_grad()
    def update(self, outputs: DetectorOutput, targets: Targets) -> None:
        """Count the images of a batch."""
        self._count(outputs.detections, objects_of(targets))

    def _count(self, found: Sequence[Detections], objects: Sequence[GroundTruthObjects]) -> None:
        if self.points is None:
            self.boxes.update(found, objects)
            return
        assert self.task.pixel_m is not None
        counted = [_without_difficult(each) for each in objects]
        self.points.update(found, counted, [self.task.pixel_m] * len(counted))

    def compute(self) -> dict[str, float]:
        """See `DetectionMetrics.compute` and `PointMetrics.compute`."""
        return self.counter.compute()

    def parts(self) -> MetricState:
        """See `DetectionMetrics.parts` and `PointMetrics.parts`."""
        return self.counter.parts()

    def of(self, parts: MetricState) -> dict[str, float]:
        """The figures of what was counted."""
        return self.counter.of(parts)

    @property
    def counter(self) -> DetectionMetrics | PointMetrics:
        """What counts: boxes or points."""
        return self.boxes if self.points is None else self.points

    def details(self) -> dict[str, Any]:
        """What a report shows, by class.

        `threshold`: the score that was given, else that from which on F1 is highest, None where
        nothing was found. Of boxes also `curve`: recall and precision as the score falls, and
        `counts` from the threshold on.
        """
        if self.points is not None:
            best = self.points.compute()["threshold"]
            assert self.task.pixel_m is not None
            return {
                "threshold": dict.fromkeys(self.task.classes, best),
                "radius_px": self.task.match_radius_m / self.task.pixel_m,
            }
        curves = self.boxes.curves()
        least = self.task.least
        if least is None:
            least = {name: c.best() if len(c.scores) else None for name, c in curves.items()}
        return {
            "threshold": {name: least.get(name) for name in curves},
            "curve": {name: _thinned(curve) for name, curve in curves.items()},
            "counts": {name: _counts(curve, least.get(name)) for name, curve in curves.items()},
        }

    def best_of_one(self, found: Detections, objects: GroundTruthObjects) -> float:
        """The highest F1 over all scores of one image, of all classes together."""
        self._count([found], [objects])
        if self.points is not None:
            value = self.points.of(self.points.parts())["f1"]
            return 0.0 if math.isnan(value) else value
        counted = self.boxes.parts()
        scores, at_half = counted.lists["scores"], counted.lists["found"][:, 0]
        curve = curve_of(scores, at_half, int(counted.sums["objects"].sum()))
        return float(curve.f1.max(initial=0.0))

    def reset(self) -> None:
        """Forget what was seen."""
        self.counter.reset()


def objects_of(targets: Targets) -> list[GroundTruthObjects]:
    """The objects of each image of a batch."""
    return [GroundTruthObjects(t["boxes"], t["labels"], t["difficult"]) for t in targets]


def _without_difficult(objects: GroundTruthObjects) -> GroundTruthObjects:
    # Points know none: what lies at the edge of a window is another window's.
    there = ~objects.ignored()
    return GroundTruthObjects(objects.boxes[there], objects.classes[there])


def _thinned(curve: Curve) -> dict[str, list[float]]:
    picked = np.unique(np.linspace(0, max(0, len(curve.scores) - 1), CURVE_POINTS).astype(int))
    picked = picked[: len(curve.scores)]
    if not curve.objects:
        picked = picked[:0]
    return {
        "recall": curve.recall[picked].tolist(),
        "precision": curve.precision[picked].tolist(),
    }


def _counts(curve: Curve, least: float | None) -> dict[str, int]:
    enough = 0 if least is None else int(np.sum(curve.scores >= np.float32(least)))
    true, false = (int(each[enough - 1]) if enough else 0 for each in (curve.true, curve.false))
    return {"true": true, "false": false, "missed": curve.objects - true}
