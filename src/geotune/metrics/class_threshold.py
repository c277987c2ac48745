"""From which probability on pixels are best given a rare class.

The most likely class of a pixel is seldom a rare one. From the histograms of the probability that
the pixels of the class and all others get, the IoU of every threshold follows at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geotune.types import IGNORE

STEPS = 100
"""Thresholds are multiples of 1 / STEPS."""


@dataclass(frozen=True)
class RareClass:
    """The class with the fewest labelled pixels.

    Attributes:
        index: of the class.
        threshold: the probability from which pixels are counted as its own; None: the one with the
            best IoU.
    """

    index: int
    threshold: float | None = None


def probability_counts(logits: Tensor, masks: Tensor, index: int) -> NDArray[np.int64]:
    """Histograms `(2, STEPS)` of a class's probability, of other pixels and of its own.

    Logits are `(B, K, H, W)`, masks `(B, H, W)`; pixels labelled `IGNORE` are skipped.
    """
    logits = logits.float()
    probability = (logits[:, index] - logits.logsumexp(dim=1)).exp()
    bins = (probability * STEPS).long().clamp(max=STEPS - 1)
    cells = (masks == index) * STEPS + bins
    cells = torch.where(masks == IGNORE, 2 * STEPS, cells)
    counts = torch.bincount(cells.flatten(), minlength=2 * STEPS + 1)[:-1]
    result: NDArray[np.int64] = counts.numpy(force=True)
    return result.reshape(2, STEPS)


def scores_at_thresholds(counts: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """`iou`, `precision` and `recall`, each `(STEPS)`, if pixels of at least `i / STEPS` are found.

    NaN where nothing is found or labelled.
    """
    false, true = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1].astype(np.float64)
    labelled = float(counts[1].sum())
    with np.errstate(invalid="ignore"):
        return {
            "iou": true / (false + labelled),
            "precision": true / (true + false),
            "recall": true / np.float64(labelled),
        }


def at_threshold(counts: NDArray[np.int64], threshold: float | None) -> dict[str, float] | None:
    """`threshold`, and the scores there; by default the one above 0 with the best IoU.

    None if the class has no pixels.
    """
    if not counts[1].any():
        return None
    scores = scores_at_thresholds(counts)
    best = int(np.nanargmax(scores["iou"][1:])) + 1
    step = best if threshold is None else min(round(threshold * STEPS), STEPS - 1)
    return {"threshold": step / STEPS} | {name: float(v[step]) for name, v in scores.items()}
