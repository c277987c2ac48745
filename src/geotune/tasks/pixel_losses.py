"""Losses of a map of classes; each leaves out the pixels whose mask is `IGNORE`.

All take log-probabilities `(B, K, H, W)`, so that a sum of them computes these once, and masks
`(B, H, W)`, and give a scalar: 0, still with a graph, where every pixel is ignored.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from geotune.types import IGNORE

GAMMA = 2.0


def cross_entropy(log_probs: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    """Mean of `-log p_y` over the counted pixels, each weighted by its class's `weights` `(K)`."""
    return focal(log_probs, masks, weights, gamma=0.0)


def focal(log_probs: Tensor, masks: Tensor, weights: Tensor, gamma: float = GAMMA) -> Tensor:
    """Focal loss: the mean of `-(1 - p_y)^gamma log p_y` (arXiv 1708.02002, equation 4).

    Pixels are weighted by class as in `cross_entropy`, and by the same sum.
    """
    counted = masks != IGNORE
    truth = masks.masked_fill(~counted, 0)
    log_p = log_probs.gather(1, truth.unsqueeze(1)).squeeze(1)
    weight = weights[truth] * counted
    terms = -log_p
    if gamma:
        terms = terms * (1 - log_p.exp()) ** gamma
    return (weight * terms).sum() / weight.sum().clamp(min=1e-12)


def dice(log_probs: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
    """Soft Dice loss: the mean over classes of `1 - 2 sum(p y) / (sum(p) + sum(y))`.

    Sums run over the whole batch (arXiv 1606.04797 without its squares). Classes that no
    counted pixel of the batch has are left out of the mean, so that it has no smoothing term.
    `weights` is not used: each class that is present counts the same.
    """
    del weights
    index = torch.arange(log_probs.shape[1], device=masks.device).view(1, -1, 1, 1)
    truth = masks.unsqueeze(1) == index
    probs = log_probs.exp() * (masks != IGNORE).unsqueeze(1)
    dims = (0, 2, 3)
    overlap = (probs * truth).sum(dims)
    amount = truth.sum(dims)
    loss = 1 - 2 * overlap / (probs.sum(dims) + amount).clamp(min=1e-12)
    present = amount > 0
    return (loss * present).sum() / present.sum().clamp(min=1)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ce": cross_entropy,
    "dice": dice,
    "focal": focal,
}
