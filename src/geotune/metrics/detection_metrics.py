"""DOTA-style average precision and detection counts of oriented and horizontal boxes."""

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
from geotune.metrics.average_precision import Interpolation, PrecisionRecallCurve, average_precision
from geotune.metrics.matching import FALSE, IGNORED, match_boxes
from geotune.metrics.state import Accumulator, MetricState

THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).round(2).tolist())


@dataclass(frozen=True)
class DetectionCounts:
    """Numbers of true positives, false positives and false negatives."""

    true: int
    false: int
    missed: int


class DetectionMetrics(nn.Module):
    """Average precision over all images since the last `reset`, across all processes.

    Detections are matched by `match_boxes`: `difficult` objects count as neither found nor missed,
    and the number of detections is not limited. `compute`, `curves` and `counts` are collectives:
    every process must call them.
    """

    def __init__(self, classes: Sequence[str], interpolation: Interpolation = "area") -> None:
        """`classes`: names by index; `interpolation`: see `average_precision`."""
        super().__init__()
        self.classes = tuple(classes)
        self.interpolation = interpolation
        empty = np.zeros(0, dtype=np.int64)
        lists: dict[str, NDArray[Any]] = {
            "scores": np.zeros(0, dtype=np.float32),
            "classes": empty,
            "found": empty.reshape(0, len(THRESHOLDS)),
        }
        self.accumulator = Accumulator(
            MetricState({"objects": np.zeros(len(self.classes), dtype=np.int64)}, lists)
        )

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names that `compute` returns."""
        by_class = [f"{metric}/{name}" for metric in ("ap50", "ap") for name in self.classes]
        return ("ap50", "ap75", "ap", *by_class)

    @torch.no_grad()
    def update(
        self, detections: Sequence[Detections], objects: Sequence[GroundTruthObjects]
    ) -> None:
        """Add images, one `Detections` and one `GroundTruthObjects` each."""
        for predicted, truth in zip(detections, objects, strict=True):
            counted = truth.classes[~truth.ignored()].cpu()
            objects_by_class = torch.bincount(counted, minlength=len(self.classes)).numpy()
            lists = {
                "scores": predicted.scores.float().numpy(force=True),
                "classes": predicted.classes.numpy(force=True),
                "found": match_boxes(predicted, truth, THRESHOLDS),
            }
            self.accumulator.add(MetricState({"objects": objects_by_class}, lists))

    def compute(self) -> dict[str, float]:
        """`ap50`, `ap75` and `ap` (the mean over IoU 0.5, 0.55, .. 0.95), and by class.

        Classes without objects are NaN and left out of the means; `difficult` ones do not count.
        """
        return self.compute_from(self.accumulator.gather())

    def state(self) -> MetricState:
        """Sum `objects` `(K)`: objects of each class. Lists: one row for each detection.

        `scores` and `classes` `(N)`, and `found` `(N, T)`, the result of `match_boxes` at each of
        `THRESHOLDS`.
        """
        return self.accumulator.state()

    def windows(self) -> list[MetricState]:
        """See `Metrics`."""
        return self.accumulator.states

    def compute_from(self, state: MetricState) -> dict[str, float]:
        """See `Metrics`."""
        table = np.array([self._average_precisions(state, k) for k in range(len(self.classes))])
        table = table.reshape(len(self.classes), len(THRESHOLDS))
        ap50, ap75, ap = table[:, 0], table[:, THRESHOLDS.index(0.75)], table.mean(axis=1)
        values = {"ap50": _mean(ap50), "ap75": _mean(ap75), "ap": _mean(ap)}
        values |= {f"ap50/{n}": float(v) for n, v in zip(self.classes, ap50, strict=True)}
        return values | {f"ap/{n}": float(v) for n, v in zip(self.classes, ap, strict=True)}

    def curves(self, iou: float = 0.5) -> dict[str, PrecisionRecallCurve]:
        """The precision-recall curve of each class at an IoU threshold of `THRESHOLDS`."""
        state, column = self.accumulator.gather(), THRESHOLDS.index(iou)
        curves = {}
        for k, name in enumerate(self.classes):
            scores, matches = _select_class(state, k)
            curves[name] = curve_from_matches(
                scores, matches[:, column], int(state.sums["objects"][k])
            )
        return curves

    def counts(self, score: float, iou: float = 0.5) -> dict[str, DetectionCounts]:
        """Counts of each class for detections with at least this score."""
        result = {}
        for name, curve in self.curves(iou).items():
            true, false = curve.counts_at(score)
            result[name] = DetectionCounts(true, false, curve.num_objects - true)
        return result

    def reset(self) -> None:
        """Discard all images."""
        self.accumulator.reset()

    def _average_precisions(self, state: MetricState, k: int) -> list[float]:
        """Average precision of class `k` at each IoU threshold.

        The curve is evaluated only at detections that match an object: the jackknife calls
        this once per test unit, and most detections are false positives.
        """
        scores, matches = _select_class(state, k)
        num_objects = int(state.sums["objects"][k])
        rows = np.flatnonzero((matches != FALSE).any(axis=1))
        rows = rows[np.argsort(-scores[rows])]
        rank = np.searchsorted(np.sort(-scores), -scores[rows], side="right")
        averages = []
        for column in matches[rows].T:
            hits, ignored = rank[column >= 0], rank[column == IGNORED]
            true = np.searchsorted(hits, hits, side="right")  # equal scores enter together
            false = hits - true - np.searchsorted(ignored, hits, side="right")
            averages.append(average_precision(true, false, num_objects, self.interpolation))
        return averages


def curve_from_matches(
    scores: NDArray[np.float32], matches: NDArray[np.int64], num_objects: int
) -> PrecisionRecallCurve:
    """The curve of detections `(N)` from their `match_boxes` results at one threshold `(N)`."""
    counted = matches != IGNORED
    return PrecisionRecallCurve.from_scores(scores[counted], matches[counted] != FALSE, num_objects)


def _select_class(state: MetricState, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Scores `(N)` and matches `(N, T)` of a class's detections."""
    selected = state.lists["classes"] == k
    return state.lists["scores"][selected], state.lists["found"][selected]


def _mean(values: NDArray[np.float64]) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else math.nan
