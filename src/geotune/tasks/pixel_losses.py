"""Segmentation losses as sums; pixels whose mask is `IGNORE` are skipped.

All take log-probabilities `(B, K, H, W)`, so that a sum of losses computes them once, and masks
`(B, H, W)`, and return a scalar that is divided by `pixel_weight` or, for Dice, by
`labelled_windows`. If every pixel is ignored it is 0, still part of the graph.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from geotune.types import IGNORE

GAMMA = 2.0


def cross_entropy(log_probs: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    """Sum of `-log p_y`, pixels weighted by their class with `weights` `(K)`."""
    return focal(log_probs, masks, weights, gamma=0.0)


def focal(log_probs: Tensor, masks: Tensor, weights: Tensor, gamma: float = GAMMA) -> Tensor:
    """Focal loss: the sum of `-(1 - p_y)^gamma log p_y` (arXiv 1708.02002, equation 4).

    Pixels are weighted as in `cross_entropy`.
    """
    weight, truth = _pixel_weights(masks, weights)
    log_p = log_probs.gather(1, truth.unsqueeze(1)).squeeze(1)
    terms = -log_p
    if gamma:
        terms = terms * (1 - log_p.exp()) ** gamma
    return (weight * terms).sum()


def pixel_weight(masks: Tensor, weights: Tensor) -> Tensor:
    """Sum of the weights of all labelled pixels, by which `cross_entropy` and `focal` are divided.

    Without weights this is their number.
    """
    return _pixel_weights(masks, weights)[0].sum()


def _pixel_weights(masks: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The weight of each pixel, and its class; both `(B, H, W)`, weight 0 for ignored pixels."""
    valid = masks != IGNORE
    truth = masks.masked_fill(~valid, 0)
    return weights[truth] * valid, truth


def labelled_windows(masks: Tensor) -> Tensor:
    """Number of windows with a labelled pixel, by which `dice` is divided."""
    return (masks != IGNORE).flatten(1).any(dim=1).sum()


def dice(log_probs: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    """Soft Dice loss: the mean over classes of `1 - 2 sum(p y) / (sum(p) + sum(y))`, times the
    number of labelled windows.

    Sums run over all windows given (arXiv 1606.04797 without the squares). They cannot be split:
    the Dice loss of a batch is the mean over its micro-batches, weighted by their labelled windows,
    so that windows without labels do not lower it. Classes
    absent from the masks are left out of the mean, so no smoothing term is needed. `weights` is not
    used: all classes present have equal weight.
    """
    del weights
    index = torch.arange(log_probs.shape[1], device=masks.device).view(1, -1, 1, 1)
    truth = masks.unsqueeze(1) == index
    probs = log_probs.exp() * (masks != IGNORE).unsqueeze(1)
    dims = (0, 2, 3)
    overlap = (probs * truth).sum(dims)
    total = truth.sum(dims)
    loss = 1 - 2 * overlap / (probs.sum(dims) + total).clamp(min=1e-12)
    present = total > 0
    return labelled_windows(masks) * (loss * present).sum() / present.sum().clamp(min=1)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ce": cross_entropy,
    "dice": dice,
    "focal": focal,
}
