"""Non-maximum suppression of oriented and horizontal boxes that scales to millions of boxes.

Boxes are processed in blocks, best scores first. For each block, the remaining boxes that overlap
it are found with a spatial index, and each box of the block that is still alive suppresses those it
overlaps too much. In raw detector output the first blocks suppress most boxes; in scenes with few
overlaps the blocks grow. Memory is bounded by the pairs of one block.
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

FIRST_BLOCK, LARGEST_BLOCK = 16, 1 << 16
INDEX_SHARE = 0.5
"""Share of the indexed boxes that are left, below which the index is built again, of these only."""
PAIRS_PER_BLOCK = 1 << 20
"""Target number of candidate pairs per block, by which the block size is adapted."""
BRUTE_FORCE_LIMIT = 4096
"""Up to this many horizontal boxes, torchvision's brute-force NMS is faster."""


def nms(boxes: Tensor, scores: Tensor, threshold: float, classes: Tensor | None = None) -> Tensor:
    """Indices `(K)` of the boxes that are kept, best first.

    A box `(N, 5)` or `(N, 4)` is dropped if its IoU with a kept box of a higher score exceeds
    `threshold`; with `classes` `(N)`, only boxes of the same class are compared. Ties in `scores`
    `(N)` are broken by order. Raises `GeotuneError` if boxes or scores are not finite.
    """
    if not (torch.isfinite(boxes).all() and torch.isfinite(scores).all()):
        raise GeotuneError(
            "boxes or scores contain NaN or infinity; if a model predicted them, its training "
            "diverged (lower train.lr) or the image contains invalid pixel values",
            code="boxes-not-finite",
        )
    order = scores.argsort(descending=True, stable=True)
    boxes = boxes[order]
    exact = boxes if boxes.device.type == "mps" else boxes.double()  # MPS has no float64
    hulls = _separate_classes(hull(exact), None if classes is None else classes[order])
    if boxes.shape[-1] == HORIZONTAL and len(boxes) <= BRUTE_FORCE_LIMIT:
        return order[torchvision.ops.nms(hulls, scores[order].to(hulls.dtype), threshold)]
    alive = _oriented_keep_mask(as_oriented(boxes), hulls, threshold)
    return order[torch.from_numpy(alive).to(order.device)]


def _separate_classes(hulls: Tensor, classes: Tensor | None) -> Tensor:
    """Hulls shifted to the origin, and by class so that different classes never overlap."""
    if not len(hulls):
        return hulls
    hulls = hulls - hulls[:, :2].amin(0).repeat(2)
    if classes is None:
        return hulls
    return hulls + (classes.to(hulls.dtype) * (hulls.max() + 1)).unsqueeze(1)


def _oriented_keep_mask(boxes: Tensor, hulls: Tensor, threshold: float) -> np.ndarray:
    """Mask `(N)` of the oriented boxes that are kept; boxes are sorted best first."""
    remaining = torch.arange(len(boxes), device=boxes.device)
    index = BoxIndex(hulls)
    areas = boxes[:, 2:4].to(hulls.dtype).prod(1)
    alive = np.ones(len(boxes), dtype=bool)
    start, size = 0, FIRST_BLOCK
    while start < len(boxes):
        block = torch.from_numpy(start + np.flatnonzero(alive[start : start + size]))
        block = block.to(boxes.device)
        row, column = index.query(hulls[block])
        num_pairs = len(row)
        j = remaining[column]
        i = block[row]
        relevant = (j > i) & torch.from_numpy(alive).to(boxes.device)[j]
        i, j = i[relevant], j[relevant]
        # IoU is at most the smaller area over the larger one; the margin allows for rounding.
        first, second = areas[i], areas[j]
        bound = torch.minimum(first, second) * (1 + 1e-5) >= threshold * torch.maximum(
            first, second
        )
        i, j = i[bound], j[bound]
        if hulls.dtype == torch.float64:  # in float32 far hulls are less exact than the margin
            # Boxes share at most what their hulls share, C: IoU <= C / (both areas - C).
            low = torch.maximum(hulls[i, :2], hulls[j, :2])
            common = (torch.minimum(hulls[i, 2:], hulls[j, 2:]) - low).clamp(min=0).prod(1)
            bound = common * (1 + threshold) * (1 + 1e-5) >= threshold * (areas[i] + areas[j])
            i, j = i[bound], j[bound]
        over = paired_iou(boxes, boxes, i, j) > threshold
        _suppress(alive, i[over].cpu().numpy(), j[over].cpu().numpy())
        start += size
        left = start + np.flatnonzero(alive[start:])
        if len(left) < INDEX_SHARE * len(remaining):
            remaining = torch.from_numpy(left).to(boxes.device)
            index = BoxIndex(hulls[remaining])
        size = min(
            LARGEST_BLOCK, max(1, min(2 * size, size * PAIRS_PER_BLOCK // max(1, num_pairs)))
        )
    return alive


def _suppress(alive: np.ndarray, better: np.ndarray, worse: np.ndarray) -> None:
    """Let each alive box suppress its `worse` partners; `better` is sorted ascending."""
    firsts = np.flatnonzero(np.diff(better, prepend=-1))
    bounds = [*firsts.tolist(), len(better)]
    for k, box in enumerate(better[firsts].tolist()):
        if alive[box]:
            alive[worse[bounds[k] : bounds[k + 1]]] = False
