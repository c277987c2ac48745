"""IoU of oriented and horizontal boxes, in float64 if the device supports it.

Oriented boxes use `intersection.py`. torchvision's operator (since 0.27) works in float32 and loses
corners of boxes that nearly coincide, the usual case in NMS; see docs/explanation/boxes.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torchvision.ops
from torch import Tensor

from geotune.boxes.intersection import normalise_frame, shared_area
from geotune.boxes.oriented import HORIZONTAL, as_oriented

PAIRS_PER_CHUNK = 1 << 14
"""Pairs per chunk on a CPU, few enough for the intermediate results to stay in its cache."""
PAIRS_PER_CHUNK_ACCELERATOR = 1 << 20


def paired_iou(first: Tensor, second: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """IoU `(P)` of the boxes `first[i]` with `second[j]`, for indices `(P)`.

    Boxes are `(N, 5)` or `(N, 4)`. Computed in float64 (float32 on MPS), in chunks to bound the
    memory. 0 if neither box has an area.
    """
    first, second = (normalise_frame(as_oriented(_precise(boxes))) for boxes in (first, second))
    result = first.new_empty(len(i))
    for chunk in _chunks(len(i), first.device, 1):
        result[chunk] = _iou(first[:, i[chunk]], second[:, j[chunk]])
    return result


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU `(N, M)` of all pairs of boxes `(N, 5)` or `(N, 4)` and `(M, 5)` or `(M, 4)`."""
    first, second = _precise(first), _precise(second)
    if first.shape[-1] == HORIZONTAL and second.shape[-1] == HORIZONTAL:
        ious: Tensor = torchvision.ops.box_iou(first, second)
        return ious.nan_to_num(0.0)
    first, second = normalise_frame(as_oriented(first)), normalise_frame(as_oriented(second))
    result = first.new_empty(first.shape[1], second.shape[1])
    for chunk in _chunks(first.shape[1], first.device, second.shape[1]):
        result[chunk] = _iou(first[:, chunk, None], second[:, None])
    return result


def _iou(first: Tensor, second: Tensor) -> Tensor:
    """IoU of boxes in the form of `normalise_frame`."""
    shared = shared_area(first, second)
    union = 4 * (first[2] * first[3] + second[2] * second[3]) - shared
    return shared / union.where(union > 0, 1.0)


def _precise(boxes: Tensor) -> Tensor:
    return boxes.to(torch.float32 if boxes.device.type == "mps" else torch.float64)


def _chunks(rows: int, device: torch.device, columns: int) -> Iterator[slice]:
    pairs = PAIRS_PER_CHUNK if device.type == "cpu" else PAIRS_PER_CHUNK_ACCELERATOR
    step = max(1, pairs // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, start + step)
