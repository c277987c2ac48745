"""Object detection: horizontal boxes, oriented boxes or points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from geotune.boxes.oriented import HORIZONTAL, ORIENTED
from geotune.boxes.structures import Detections, DetectorOutput, GroundTruthObjects, Targets
from geotune.config.task_options import DetectOptions
from geotune.errors import GeotuneError
from geotune.metrics.average_precision import PrecisionRecallCurve
from geotune.metrics.detection_metrics import DetectionMetrics, curve_from_matches
from geotune.metrics.point_metrics import PointMetrics
from geotune.metrics.state import MetricState
from geotune.tasks.step_loss import LossFromTerms

Boxes = Literal["horizontal", "oriented", "points"]
Scores = Mapping[str, float | None]
"""Score threshold by class; None: unknown, and no detection of the class counts."""

CONFIDENT = 0.5
"""In a window without objects, detections with at least this score count as errors."""
EXAMPLE_OBJECTS = 32
"""Objects in the placeholder targets."""
CURVE_POINTS = 200
"""Maximum number of points of a curve in the report."""


class Detect(LossFromTerms):
    """Loss, metrics and postprocessing of `DetectorOutput`.

    The detector computes its losses itself, because they depend on the anchors and proposals that
    it samples; the task adds them up.
    """

    lower_is_better: ClassVar[tuple[str, ...]] = ("rmse_m", "count_mae", "count_rmse")
    output_kind: ClassVar[str] = "objects"

    def __init__(self, options: DetectOptions) -> None:
        """Points are trained as horizontal boxes and evaluated by box centres."""
        self.classes = tuple(options.classes)
        self.boxes = options.boxes
        self.match_radius_m = options.match_radius_m
        self.pixel_m = options.pixel_m
        self.score_thresholds: Scores | None = None

    def with_score_threshold(self, thresholds: Scores) -> Detect:
        """A copy with thresholds from validation, so that they are not chosen on test data."""
        task = copy(self)
        task.score_thresholds = thresholds
        return task

    @property
    def main_metric(self) -> str:
        """`ap50`; for points `f1`."""
        return "f1" if self.boxes == "points" else "ap50"

    @property
    def num_outputs(self) -> int:
        """Number of object classes."""
        return len(self.classes)

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names that `metrics().compute()` returns."""
        if self.boxes == "points":
            return PointMetrics(self.classes, self.match_radius_m).metric_names
        return DetectionMetrics(self.classes).metric_names

    def loss_sums(self, outputs: DetectorOutput, targets: Targets) -> Mapping[str, Tensor]:
        """The detector's losses."""
        return outputs.losses

    def loss_counts(self, outputs: DetectorOutput, targets: Targets) -> Mapping[str, Tensor]:
        """See `DetectorOutput.counts`; by default the number of images."""
        return outputs.counts(targets)

    def metrics(self) -> DetectMetrics:
        """New, empty metrics. Raises `GeotuneError` for points if the pixel size is unknown."""
        return DetectMetrics(self)

    def score(self, outputs: DetectorOutput, targets: Targets) -> float:
        """F1 of one window at its best score threshold.

        Without objects, 0 if a detection is `CONFIDENT` and NaN otherwise.
        """
        [detections], [objects] = outputs.detections, objects_from(targets)
        if objects.ignored().all():
            return 0.0 if (detections.scores >= CONFIDENT).any() else math.nan
        # Not compute(), which is a collective: only this process has the window.
        return self.metrics().best_window_f1(detections, objects)

    def postprocess(self, outputs: DetectorOutput) -> Sequence[Detections]:
        """The detections of each image."""
        return outputs.detections

    def predict(self, outputs: DetectorOutput) -> list[Tensor]:
        """The detections of each window as rows `(N, D + 2)`: box, score and class."""
        return [
            torch.cat([d.boxes, d.scores[:, None], d.classes[:, None].to(d.boxes.dtype)], dim=1)
            for d in outputs.detections
        ]

    def example_targets(self, window: int) -> list[dict[str, Tensor]]:
        """See `Task`."""
        columns = ORIENTED if self.boxes == "oriented" else HORIZONTAL
        return [
            {
                "boxes": torch.zeros(EXAMPLE_OBJECTS, columns),
                "labels": torch.zeros(EXAMPLE_OBJECTS, dtype=torch.int64),
                "difficult": torch.zeros(EXAMPLE_OBJECTS, dtype=torch.bool),
            }
        ]


class DetectMetrics(nn.Module):
    """`DetectionMetrics` for boxes, `PointMetrics` for points."""

    def __init__(self, task: Detect) -> None:
        super().__init__()
        self.task = task
        self.boxes = DetectionMetrics(task.classes)
        self.points: PointMetrics | None = None
        if task.boxes == "points":
            if task.pixel_m is None:
                raise GeotuneError(
                    "task.pixel_m: the files do not state the pixel size, which is needed to match "
                    "points by distance; set it in metres",
                    code="pixel-size-missing",
                    key="task.pixel_m",
                )
            thresholds = (task.score_thresholds or {}).values()
            threshold = min((score for score in thresholds if score is not None), default=None)
            self.points = PointMetrics(task.classes, task.match_radius_m, threshold)

    @torch.no_grad()
    def update(self, outputs: DetectorOutput, targets: Targets) -> None:
        """Add the images of a batch."""
        self._update(outputs.detections, objects_from(targets))

    def _update(
        self, detections: Sequence[Detections], objects: Sequence[GroundTruthObjects]
    ) -> None:
        if self.points is None:
            self.boxes.update(detections, objects)
            return
        assert self.task.pixel_m is not None
        counted = [_without_difficult(each) for each in objects]
        self.points.update(detections, counted, [self.task.pixel_m] * len(counted))

    def compute(self) -> dict[str, float]:
        """See `DetectionMetrics.compute` and `PointMetrics.compute`."""
        return self.counter.compute()

    def state(self) -> MetricState:
        """See `DetectionMetrics.state` and `PointMetrics.state`."""
        return self.counter.state()

    def windows(self) -> list[MetricState]:
        """See `Metrics`."""
        return self.counter.windows()

    def compute_from(self, state: MetricState) -> dict[str, float]:
        """See `Metrics`."""
        return self.counter.compute_from(state)

    @property
    def counter(self) -> DetectionMetrics | PointMetrics:
        """The metrics in use."""
        return self.boxes if self.points is None else self.points

    def details(self) -> dict[str, Any]:
        """By class, for the report.

        `threshold`: the given score threshold, or the one with the highest F1; None without
        detections. For boxes also `curve`, the precision-recall curve, and `counts` at the
        threshold; for points `radius_px`, the matching radius.
        """
        if self.points is not None:
            best = self.points.compute()["threshold"]
            assert self.task.pixel_m is not None
            return {
                "threshold": dict.fromkeys(self.task.classes, best),
                "radius_px": self.task.match_radius_m / self.task.pixel_m,
            }
        curves = self.boxes.curves()
        given = self.task.score_thresholds
        if given is None:
            given = {n: c.best_threshold() if len(c.scores) else None for n, c in curves.items()}
        thresholds = {name: given.get(name) for name in curves}
        return {
            "threshold": thresholds,
            "curve": {name: _subsample(curve) for name, curve in curves.items()},
            "counts": {name: _counts(curve, thresholds[name]) for name, curve in curves.items()},
        }

    def best_window_f1(self, detections: Detections, objects: GroundTruthObjects) -> float:
        """F1 of one image at its best score threshold, over all classes together."""
        self._update([detections], [objects])
        if self.points is not None:
            value = self.points.compute_from(self.points.state())["f1"]
            return 0.0 if math.isnan(value) else value
        state = self.boxes.state()
        matches = state.lists["found"][:, 0]  # at IoU 0.5
        num_objects = int(state.sums["objects"].sum())
        curve = curve_from_matches(state.lists["scores"], matches, num_objects)
        return float(curve.f1.max(initial=0.0))

    def reset(self) -> None:
        """Discard all images."""
        self.counter.reset()


def objects_from(targets: Targets) -> list[GroundTruthObjects]:
    """The objects of each image of a batch."""
    return [GroundTruthObjects(t["boxes"], t["labels"], t["difficult"]) for t in targets]


def _without_difficult(objects: GroundTruthObjects) -> GroundTruthObjects:
    # PointMetrics has no `difficult`; such points lie at the edge and belong to another window.
    counted = ~objects.ignored()
    return GroundTruthObjects(objects.boxes[counted], objects.classes[counted])


def _subsample(curve: PrecisionRecallCurve) -> dict[str, list[float]]:
    count = len(curve.scores)
    index = np.unique(np.linspace(0, max(0, count - 1), CURVE_POINTS).astype(int))[:count]
    if not curve.num_objects:
        index = index[:0]
    return {"recall": curve.recall[index].tolist(), "precision": curve.precision[index].tolist()}


def _counts(curve: PrecisionRecallCurve, threshold: float | None) -> dict[str, int]:
    true, false = (0, 0) if threshold is None else curve.counts_at(threshold)
    return {"true": true, "false": false, "missed": curve.num_objects - true}
