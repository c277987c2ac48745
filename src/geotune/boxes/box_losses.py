"""Box regression losses: GIoU for horizontal boxes, ProbIoU and KFIoU for oriented ones.

ProbIoU and KFIoU represent an oriented box by a normal distribution: the centre is the mean, and
the sides are proportional to the standard deviations along and across the angle. All descriptions
of a rectangle give the same distribution, so the loss is continuous where the angle wraps or the
sides swap. The distribution of a square is isotropic: if either box is square, the angle has no
gradient.

Both papers' formulas need one number that measures how much two distributions differ in shape,

    |S1 + S2| / (4 sqrt(|S1| |S2|)) = 1 + sinh(x/2)^2 + cos(d)^2 sinh(y/2)^2 + sin(d)^2 sinh(z/2)^2
    x = ln(w1 h1 / (w2 h2))     y = ln(w1 h2 / (w2 h1))     z = ln(w1 w2 / (h1 h2))

where d is the angle between the boxes. In this form every term is positive; the determinants in the
papers are differences that cancel for thin boxes.

The losses take predicted and true boxes `(..., 5)` and return one loss each `(...)`, 0 for equal
boxes, in float32 or float64. Sides below `MIN_SIDE` are clamped and get no gradient.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

MIN_SIDE = 1e-3
_SMOOTHING = 1e-3
_EPSILON = 1e-7
_BETA = 1 / 9


def giou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """`1 - GIoU` in [0, 2) of horizontal boxes `(..., 4)` with others (arXiv 1902.09630).

    As in torchvision, but without data-dependent checks.
    """
    low, high = torch.maximum(predicted, target), torch.minimum(predicted, target)
    shared = (high[..., 2:] - low[..., :2]).clamp(min=0).prod(-1)
    enclosing = (low[..., 2:] - high[..., :2]).prod(-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(-1) for boxes in (predicted, target)]
    union = areas[0] + areas[1] - shared
    iou = shared / union.clamp(min=_EPSILON)
    return 1 - iou + (enclosing - union) / enclosing.clamp(min=_EPSILON)


def probiou_loss(predicted: Tensor, target: Tensor, bounded: bool = True) -> Tensor:
    """`1 - ProbIoU`: the Hellinger distance of the two distributions (arXiv 2106.06072).

    `bounded`: equation L1 of the paper, `sqrt(1 - exp(-B))` in [0, 1), whose gradient vanishes for
    distant boxes; otherwise L2, the Bhattacharyya distance B itself, whose gradient does not. The
    variance along a side is that of a uniform distribution, `w^2 / 12`.
    """
    predicted, target = _clamp_sides(predicted), _clamp_sides(target)
    shape = _mismatch(predicted, target)
    distance = 0.5 * torch.log1p(shape) + _center_term(predicted, target) / (1 + shape)
    if not bounded:
        return distance
    # Smoothed because the derivative of the square root is infinite at zero.
    return torch.sqrt(-torch.expm1(-distance) + _SMOOTHING**2) - _SMOOTHING


def kfiou_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """`-ln(3 KFIoU)` plus a centre loss (arXiv 2201.12558).

    KFIoU is the overlap of the distributions with coinciding centres: the area of their Kalman
    filter product over the sum of both areas minus that area. It is at most 1/3; the factor 3 makes
    the loss 0 for equal boxes. The centre loss is the sum of smooth L1 (beta 1/9) of the offset
    along and across the target, in units of the target's sides.
    """
    predicted, target = _clamp_sides(predicted), _clamp_sides(target)
    areas = (predicted[..., 2:4].log() - target[..., 2:4].log()).sum(-1)
    # V_kf = sqrt(V1 V2 / ratio) / 2, so 1 / KFIoU = (V1 + V2) / V_kf - 1, which is:
    inverse = 4 * torch.cosh(areas / 2) * torch.sqrt(1 + _mismatch(predicted, target)) - 1
    offset = _rotate(predicted[..., :2] - target[..., :2], target[..., 4]) / target[..., 2:4]
    centre = smooth_l1_loss(offset, torch.zeros_like(offset), beta=_BETA, reduction="none")
    return torch.log(inverse / 3) + centre.sum(-1)


def _clamp_sides(boxes: Tensor) -> Tensor:
    boxes = boxes if boxes.dtype == torch.float64 else boxes.float()
    sides = boxes[..., 2:4].clamp(min=MIN_SIDE)
    return torch.cat([boxes[..., :2], sides, boxes[..., 4:]], -1)


def _mismatch(first: Tensor, second: Tensor) -> Tensor:
    """The equation in the module docstring, minus 1."""
    logs, others = first[..., 2:4].log(), second[..., 2:4].log()
    (w1, h1), (w2, h2) = logs.unbind(-1), others.unbind(-1)
    between = first[..., 4] - second[..., 4]
    return (
        torch.sinh((w1 + h1 - w2 - h2) / 2) ** 2
        + (torch.cos(between) * torch.sinh((w1 + h2 - w2 - h1) / 2)) ** 2
        + (torch.sin(between) * torch.sinh((w1 + w2 - h1 - h2) / 2)) ** 2
    )


def _center_term(first: Tensor, second: Tensor) -> Tensor:
    """`(12 / 16) d^T (adj S1 + adj S2) d / sqrt(|S1| |S2|)`, S with the squared sides."""
    offset = first[..., :2] - second[..., :2]
    area = (first[..., 2:4].log() + second[..., 2:4].log()).sum(-1).exp()
    forms = []
    for box in (first, second):
        along, across = _rotate(offset, box[..., 4]).unbind(-1)
        w, h = box[..., 2], box[..., 3]
        forms.append((h * along) ** 2 + (w * across) ** 2)
    return 0.75 * (forms[0] + forms[1]) / area


def _rotate(offset: Tensor, angle: Tensor) -> Tensor:
    """Components of offsets `(..., 2)` along and across a direction."""
    x, y = offset.unbind(-1)
    cos, sin = torch.cos(angle), torch.sin(angle)
    return torch.stack([x * cos + y * sin, y * cos - x * sin], -1)
