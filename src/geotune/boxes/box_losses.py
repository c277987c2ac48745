"""Losses of boxes: of horizontal ones GIoU, of oriented ones those of Gaussians.

The losses of oriented boxes know no angle, only the Gaussian that a box stands for.

A box is taken for a normal distribution: its centre, and its sides as standard deviations along
and across the angle. Two descriptions of one rectangle are one distribution, so nothing jumps where
an angle wraps or sides change places. What is left is that a square's distribution is round: where
either box is a square its angle has no gradient, and a detector of round things learns none.

Both papers' formulas need one number that says how much two distributions differ in shape,

    |S1 + S2| / (4 sqrt(|S1| |S2|)) = 1 + sinh(x/2)^2 + cos(d)^2 sinh(y/2)^2 + sin(d)^2 sinh(z/2)^2
    x = ln(w1 h1 / (w2 h2))     y = ln(w1 h2 / (w2 h1))     z = ln(w1 w2 / (h1 h2))

where d is the angle between the boxes. It is written so here because every term is positive: the
determinants, as they stand in the papers, are differences that cancel where boxes are thin.

They take boxes `(..., 5)`, predicted and true, and give a loss each `(...)`, 0 for equal boxes, in
float32 at least. Sides below `LEAST_SIDE` count as that long and get no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

LEAST_SIDE = 1e-3
_SOFT = 1e-3
_LEAST = 1e-7
_BETA = 1 / 9


def giou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """`1 - GIoU` in [0, 2) of horizontal boxes `(..., 4)` with others (arXiv 1902.09630).

    That of torchvision, without its look at values.
    """
    low, high = torch.maximum(predicted, target), torch.minimum(predicted, target)
    shared = (high[..., 2:] - low[..., :2]).clamp(min=0).prod(-1)
    around = (low[..., 2:] - high[..., :2]).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (predicted, target)]
    union = areas[0] + areas[1] - shared
    return 1 - shared / union.clamp(min=_LEAST) + (around - union) / around.clamp(min=_LEAST)


def probiou_loss(predicted: Tensor, target: Tensor, bounded: bool = True) -> Tensor:
    """`1 - ProbIoU`: the Hellinger distance of the two distributions (arXiv 2106.06072).

    `bounded`: equation L1 of the paper, `sqrt(1 - exp(-B))` in [0, 1), whose gradient goes to zero
    for boxes that are far apart; else L2, the Bhattacharyya distance B itself, which pulls them
    together from anywhere. A side stands for the variance of evenly spread points: `w^2 / 12`.
    """
    predicted, target = _prepared(predicted), _prepared(target)
    shape = _mismatch(predicted, target)
    distance = 0.5 * torch.log1p(shape) + _apart(predicted, target) / (1 + shape)
    if not bounded:
        return distance
    # The root's slope at zero is infinite, and that of what is under it zero: soft by a thousandth.
    return torch.sqrt(-torch.expm1(-distance) + _SOFT**2) - _SOFT


def kfiou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """`-ln(3 KFIoU)` and a loss of the centre (arXiv 2201.12558).

    KFIoU is the overlap of the distributions once their centres are one: the area of what a Kalman
    filter makes of both, over the areas of either less that; at most 1/3, hence the 3, which moves
    the paper's logarithmic form to 0 for equal boxes. The centre's loss is smooth L1 (beta 1/9) of
    its offset along and across the target, in units of the target's sides, summed.
    """
    predicted, target = _prepared(predicted), _prepared(target)
    areas = (predicted[..., 2:4].log() - target[..., 2:4].log()).sum(-1)
    # V_kf = sqrt(V1 V2 / ratio) / 2, so 1 / KFIoU = (V1 + V2) / V_kf - 1, which is:
    inverse = 4 * torch.cosh(areas / 2) * torch.sqrt(1 + _mismatch(predicted, target)) - 1
    offset = _turned(predicted[..., :2] - target[..., :2], target[..., 4]) / target[..., 2:4]
    centre = smooth_l1_loss(offset, torch.zeros_like(offset), beta=_BETA, reduction="none")
    return torch.log(inverse / 3) + centre.sum(-1)


def _prepared(boxes: Tensor) -> Tensor:
    boxes = boxes if boxes.dtype == torch.float64 else boxes.float()
    sides = boxes[..., 2:4].clamp(min=LEAST_SIDE)
    return torch.cat([boxes[..., :2], sides, boxes[..., 4:]], -1)


def _mismatch(first: Tensor, second: Tensor) -> Tensor:
    """What the equation above says beyond its 1."""
    logs, others = first[..., 2:4].log(), second[..., 2:4].log()
    (w1, h1), (w2, h2) = logs.unbind(-1), others.unbind(-1)
    between = first[..., 4] - second[..., 4]
    return (
        torch.sinh((w1 + h1 - w2 - h2) / 2) ** 2
        + (torch.cos(between) * torch.sinh((w1 + h2 - w2 - h1) / 2)) ** 2
        + (torch.sin(between) * torch.sinh((w1 + w2 - h1 - h2) / 2)) ** 2
    )


def _apart(first: Tensor, second: Tensor) -> Tensor:
    """`(12 / 16) d^T (adj S1 + adj S2) d / sqrt(|S1| |S2|)`, S of the squared sides."""
    offset = first[..., :2] - second[..., :2]
    area = (first[..., 2:4].log() + second[..., 2:4].log()).sum(-1).exp()
    forms = []
    for box in (first, second):
        along, across = _turned(offset, box[..., 4]).unbind(-1)
        w, h = box[..., 2], box[..., 3]
        forms.append((h * along) ** 2 + (w * across) ** 2)
    return 0.75 * (forms[0] + forms[1]) / area


def _turned(offset: Tensor, angle: Tensor) -> Tensor:
    """Offsets `(..., 2)` along and across an angle."""
    x, y = offset.unbind(-1)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([x * cos + y * sin, y * cos - x * sin], -1)
