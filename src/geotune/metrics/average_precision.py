"""Precision-recall curves and average precision."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interpolation = Literal["area", "voc07", "coco"]
INTERPOLATIONS: dict[Interpolation, int | None] = {"area": None, "voc07": 11, "coco": 101}
"""Number of recall levels at which the curve is sampled; None: the exact area."""


@dataclass(frozen=True)
class PrecisionRecallCurve:
    """True and false positives of one class as the score threshold decreases.

    Detections with equal scores enter together, so the curve does not depend on their order.

    Attributes:
        scores: the distinct scores `(P)`, descending.
        true_positives: detections at or above each score that match an object `(P)`.
        false_positives: detections at or above each score that match none `(P)`.
        num_objects: number of objects; if 0, recall and average precision are NaN.
    """

    scores: NDArray[np.float32]
    true_positives: NDArray[np.int64]
    false_positives: NDArray[np.int64]
    num_objects: int

    @staticmethod
    def from_scores(
        scores: NDArray[np.float32], matched: NDArray[np.bool_], num_objects: int
    ) -> PrecisionRecallCurve:
        """From scores `(N)` and whether each detection matches an object `(N)`."""
        order = np.argsort(-scores, kind="stable")
        scores, matched = scores[order], matched[order]
        last = np.flatnonzero(np.diff(scores, append=-np.inf))
        true = np.cumsum(matched, dtype=np.int64)[last]
        return PrecisionRecallCurve(scores[last], true, last + 1 - true, num_objects)

    @property
    def precision(self) -> Floats:
        """`tp / (tp + fp)` `(P)`."""
        return self.true_positives / (self.true_positives + self.false_positives)

    @property
    def recall(self) -> Floats:
        """`tp / (tp + fn)` `(P)`; NaN without objects."""
        return self.true_positives / (self.num_objects or math.nan)

    @property
    def f1(self) -> Floats:
        """`2 tp / (2 tp + fp + fn)` `(P)`."""
        total = self.true_positives + self.false_positives + self.num_objects
        return 2 * self.true_positives / total

    def best_threshold(self) -> float:
        """The score threshold with the highest F1; NaN without detections."""
        return float(self.scores[np.argmax(self.f1)]) if len(self.scores) else math.nan

    def counts_at(self, threshold: float) -> tuple[int, int]:
        """True and false positives among the detections with at least this score."""
        count = int(np.sum(self.scores >= np.float32(threshold)))
        if not count:
            return 0, 0
        return int(self.true_positives[count - 1]), int(self.false_positives[count - 1])

    def average_precision(self, interpolation: Interpolation = "area") -> float:
        """See the function `average_precision`."""
        return average_precision(
            self.true_positives, self.false_positives, self.num_objects, interpolation
        )


def average_precision(
    true_positives: NDArray[np.int64],
    false_positives: NDArray[np.int64],
    num_objects: int,
    interpolation: Interpolation = "area",
) -> float:
    """Average precision from cumulative counts, by descending score; NaN without objects.

    Scores at which no object is matched may be omitted: precision is lower there than before.

    The interpolated precision at a recall is the highest precision at that or any higher recall.
    `area` averages it over recall from 0 to 1 (VOC since 2010), `voc07` over the levels 0, 0.1, ..
    1 (VOC 2007), and `coco` over 0, 0.01, .. 1. As in the published evaluation codes, recalls are
    compared with these levels in floating point, where 3 of 10 is less than 0.3.
    """
    if not num_objects:
        return math.nan
    precision = true_positives / (true_positives + false_positives)
    recall, highest = true_positives / num_objects, np.maximum.accumulate(precision[::-1])[::-1]
    levels = INTERPOLATIONS[interpolation]
    if levels is None:
        return float(np.sum(np.diff(recall, prepend=0.0) * highest))
    index = np.searchsorted(recall, np.linspace(0, 1, levels))
    return float(np.append(highest, 0.0)[index].mean())
