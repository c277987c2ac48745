"""Non-maximum suppression of oriented and horizontal boxes, for thousands or for millions.

The best boxes are looked at first, a block at a time. A block's neighbours that are still alive
are found, the pairs that overlap too much are kept as lists, and going down the block every box
that is alive suppresses its list. In a detector's raw output the first blocks suppress most, so
that little is left to compare; in a scene with few overlaps the blocks grow. Memory is bounded by
the pairs of one block.
"""

from __future__ import annotations

import numpy as np
import torch
import torchvision.ops
from torch import Tensor

from geotune.boxes.candidate_pairs import BoxIndex
from geotune.boxes.iou import paired_iou
from geotune.boxes.oriented import HORIZONTAL, as_oriented, hull
from geotune.errors import GeotuneError

_FIRST, _LARGEST = 16, 1 << 16
_PAIRS = 1 << 20
"""Pairs that a block should find: its size follows what the one before found."""
_FEW = 4096
"""Up to here torchvision's comparing of all horizontal boxes is the faster way."""


def nms(boxes: Tensor, scores: Tensor, threshold: float, classes: Tensor | None = None) -> Tensor:
    """Indices `(K)` of the boxes that stay, best first.

    A box `(N, 5)` or `(N, 4)` goes where it has an IoU above `threshold` with one of a higher score
    `(N)` that stays and, where `classes` `(N)` are given, is of its class. Of equal scores the
    first is the better. Raises `GeotuneError` for boxes or scores that are not finite.
    """
    if not (torch.isfinite(boxes).all() and torch.isfinite(scores).all()):
        raise GeotuneError(
            "boxes or scores are not finite, expected numbers; where a model gives them its "
            "training went astray: lower train.lr, or look for broken pixel values in the image"
        )
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    hulls = _apart(hull(boxes), None if classes is None else classes[order])
    if boxes.shape[-1] == HORIZONTAL and len(boxes) <= _FEW:
        return order[torchvision.ops.nms(hulls, scores[order].to(hulls.dtype), threshold)]
    alive = _survivors(as_oriented(boxes), hulls, threshold)
    return order[torch.from_numpy(alive).to(order.device)]


def _apart(hulls: Tensor, classes: Tensor | None) -> Tensor:
    """Hulls moved so that those of different classes never meet, near the origin."""
    if not len(hulls):
        return hulls
    hulls = hulls if hulls.device.type == "mps" else hulls.double()
    hulls = hulls - hulls[:, :2].amin(0).repeat(2)
    if classes is None:
        return hulls
    return hulls + (classes.to(hulls.dtype) * (hulls.max() + 1)).unsqueeze(1)


def _survivors(boxes: Tensor, hulls: Tensor, threshold: float) -> np.ndarray:
    """Which of oriented boxes, best first, stay: `(N)` bool."""
    neighbours = BoxIndex(hulls)
    areas = boxes[:, 2] * boxes[:, 3]
    alive = np.ones(len(boxes), dtype=bool)
    start, size = 0, _FIRST
    while start < len(boxes):
        block = torch.from_numpy(start + np.flatnonzero(alive[start : start + size]))
        block = block.to(boxes.device)
        row, j = neighbours.query(hulls[block])
        found = len(row)
        i = block[row]
        counts = (j > i) & torch.from_numpy(alive).to(boxes.device)[j]
        i, j = i[counts], j[counts]
        # An IoU is at most the smaller area over the larger; what rounding could decide stays.
        first, second = areas[i], areas[j]
        bound = torch.minimum(first, second) * (1 + 1e-5) >= threshold * torch.maximum(
            first, second
        )
        i, j = i[bound], j[bound]
        over = paired_iou(boxes, boxes, i, j) > threshold
        _suppress(alive, i[over].cpu().numpy(), j[over].cpu().numpy())
        start += size
        size = min(_LARGEST, max(1, min(2 * size, size * _PAIRS // max(1, found))))
    return alive


def _suppress(alive: np.ndarray, better: np.ndarray, worse: np.ndarray) -> None:
    """Let each box that is alive end those on its list; `better` rises."""
    firsts = np.flatnonzero(np.diff(better, prepend=-1))
    bounds = [*firsts.tolist(), len(better)]
    for k, box in enumerate(better[firsts].tolist()):
        if alive[box]:
            alive[worse[bounds[k] : bounds[k + 1]]] = False
