"""From which probability on pixels are best given a rare class.

The most likely class of a pixel is seldom a rare one. From the histograms of the probability that
the pixels of a class and all others get, the IoU of every threshold follows at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    """A class that has fewer labelled pixels than another.

    Attributes:
        index: of the class.
        threshold: the probability from which pixels are counted as its own; None: the one with the
            best IoU.
    """

    index: int
    threshold: float | None = None


def probability_counts(logits: Tensor, masks: Tensor, indices: Sequence[int]) -> NDArray[np.int64]:
    """Histograms `(C, 2, STEPS)` of the probability of C classes, of other pixels and of its own.

    Logits are `(B, K, H, W)`, masks `(B, H, W)`; pixels labelled `IGNORE` are skipped.
    """
    logits = logits.float()
    total = logits.logsumexp(dim=1)
    ignored = masks == IGNORE
    counts = np.empty((len(indices), 2, STEPS), np.int64)
    for row, index in enumerate(indices):  # one class at a time, for the memory of one
        bins = ((logits[:, index] - total).exp() * STEPS).long().clamp(max=STEPS - 1)
        cells = torch.where(ignored, 2 * STEPS, (masks == index) * STEPS + bins)
        found = torch.bincount(cells.flatten(), minlength=2 * STEPS + 1)[:-1]
        counts[row] = found.numpy(force=True).reshape(2, STEPS)
    return counts


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


def apply_thresholds(probabilities: Tensor, thresholds: Mapping[int, float]) -> Tensor:
    """Class indices `(H, W)` from probabilities `(K, H, W)` and thresholds by class.

    A pixel gets the class whose probability is the largest multiple of its threshold, if it is at
    least 1; else the most likely class of those without a threshold, if there are any.
    """
    if not thresholds:
        return probabilities.max(dim=0).indices
    indices = torch.tensor([*thresholds], device=probabilities.device)
    limits = probabilities.new_tensor([*thresholds.values()])
    multiple, first = (probabilities[indices] / limits[:, None, None]).max(dim=0)
    chosen = indices[first]
    if len(thresholds) == len(probabilities):
        return chosen
    others = probabilities.index_fill(0, indices, -1).max(dim=0).indices
    return torch.where(multiple >= 1, chosen, others)
