"""IoU of oriented and horizontal boxes, in float64 where there is any.

That of oriented boxes comes from `intersection.py`. The operator of torchvision (0.27 on) counts
corners in float32 and loses some where boxes nearly coincide, which is what suppression is about:
docs/boxes.md has the figures.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torchvision.ops
from torch import Tensor

from geotune.boxes.intersection import normalise_frame, shared_area
from geotune.boxes.oriented import HORIZONTAL, as_oriented

_PAIRS = 1 << 14
"""Pairs at once on a CPU: what they need, about 2 MB an array, stays near the core."""
_PAIRS_ACCELERATOR = 1 << 20


def paired_iou(first: Tensor, second: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """IoU `(P)` of the boxes `first[i]` with `second[j]`, for indices `(P)`.

    Boxes are `(N, 5)` or `(N, 4)`. Computed in float64 (float32 on MPS), in pieces, so that memory
    beyond the result has a bound. 0 where neither box has an area.
    """
    first, second = (normalise_frame(as_oriented(_precise(boxes))) for boxes in (first, second))
    result = first.new_empty(len(i))
    for part in _pieces(len(i), first.device, 1):
        result[part] = _iou(first[:, i[part]], second[:, j[part]])
    return result


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU `(N, M)` of boxes `(N, 5)` or `(N, 4)` with each of `(M, 5)` or `(M, 4)`; see above."""
    first, second = _precise(first), _precise(second)
    if first.shape[-1] == HORIZONTAL and second.shape[-1] == HORIZONTAL:
        ious: Tensor = torchvision.ops.box_iou(first, second)
        return ious.nan_to_num(0.0)
    first, second = normalise_frame(as_oriented(first)), normalise_frame(as_oriented(second))
    result = first.new_empty(first.shape[1], second.shape[1])
    for part in _pieces(first.shape[1], first.device, second.shape[1]):
        result[part] = _iou(first[:, part, None], second[:, None])
    return result


def _iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of boxes as `normalise_frame` gives them."""
    shared = shared_area(first, second)
    union = 4 * (first[2] * first[3] + second[2] * second[3]) - shared
    return shared / union.where(union > 0, 1.0)


def _precise(boxes: Tensor) -> Tensor:
    return boxes.to(torch.float32 if boxes.device.type == "mps" else torch.float64)


def _pieces(rows: int, device: torch.device, columns: int) -> Iterator[slice]:
    pairs = _PAIRS if device.type == "cpu" else _PAIRS_ACCELERATOR
    step = max(1, pairs // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, start + step)
