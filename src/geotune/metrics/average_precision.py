"""Precision and recall as the score falls, and the average precision of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Interpolation = Literal["area", "voc07", "coco"]
INTERPOLATIONS: dict[Interpolation, int | None] = {"area": None, "voc07": 11, "coco": 101}
"""Levels of recall at which the curve is read; None: everywhere."""


@dataclass(frozen=True)
class Curve:
    """What is found as the threshold falls over the detections of one class.

    Detections of one score enter together, so that nothing depends on their order.

    Attributes:
        scores: the distinct scores `(P)`, falling.
        true: detections with at least that score that found an object.
        false: those that found none.
        objects: how many objects there are; 0 makes recall and precision's average NaN.
    """

    scores: NDArray[np.float32]
    true: NDArray[np.int64]
    false: NDArray[np.int64]
    objects: int

    @staticmethod
    def of(scores: NDArray[np.float32], found: NDArray[np.bool_], objects: int) -> Curve:
        """From scores `(N)` and whether each found an object `(N)`; ignored ones left out."""
        order = np.argsort(-scores, kind="stable")
        scores, found = scores[order], found[order]
        last = np.flatnonzero(np.diff(scores, append=-np.inf))
        true = np.cumsum(found, dtype=np.int64)[last]
        return Curve(scores[last], true, last + 1 - true, objects)

    @property
    def precision(self) -> Floats:
        """Share of the detections that found an object `(P)`."""
        return self.true / (self.true + self.false)

    @property
    def recall(self) -> Floats:
        """Share of the objects that are found `(P)`; NaN where there is none."""
        return self.true / (self.objects or math.nan)

    @property
    def f1(self) -> Floats:
        """`2 tp / (2 tp + fp + fn)` `(P)`."""
        return 2 * self.true / (self.true + self.false + self.objects)

    def best(self) -> float:
        """The score from which on the F1 is highest; NaN where nothing is detected."""
        return float(self.scores[np.argmax(self.f1)]) if len(self.scores) else math.nan

    def average(self, interpolation: Interpolation = "area") -> float:
        """See `average_precision`."""
        return average_precision(self.true, self.false, self.objects, interpolation)


def average_precision(
    true: NDArray[np.int64],
    false: NDArray[np.int64],
    objects: int,
    interpolation: Interpolation = "area",
) -> float:
    """The average of precision over recall; NaN where there is no object.

    Of detections that found an object and that did not, as the score falls. Scores at which none is
    found may be left out: precision there is lower than before.

    The precision at a recall is the highest at that recall or a higher one. `area` is the mean of
    it over recall from 0 to 1 (VOC from 2010 on), `voc07` that at 0, 0.1, .. 1 (VOC 2007), and
    `coco` that at 0, 0.01, .. 1. Recalls are held against these levels in floating point as the
    published evaluations do it, to which 3 of 10 is less than 0.3.
    """
    if not objects:
        return math.nan
    recall, highest = true / objects, np.maximum.accumulate((true / (true + false))[::-1])[::-1]
    levels = INTERPOLATIONS[interpolation]
    if levels is None:
        return float(np.sum(np.diff(recall, prepend=0.0) * highest))
    at = np.searchsorted(recall, np.linspace(0, 1, levels))
    return float(np.append(highest, 0.0)[at].mean())
