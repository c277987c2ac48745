"""Ground truth of detectors, and its assignment to anchors and proposals.

All output shapes depend on the input shapes only: ignored boxes get zero weight and are not
removed. A training step therefore runs on fake tensors, for memory estimates, and needs no
synchronisation with a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor

from geotune.boxes.structures import Targets

BACKGROUND, IGNORE_BOX = -1, -2
"""In place of an object's index: a negative, and a box that adds nothing to the loss."""
PAIRS_PER_CHUNK = 1 << 20
"""Pairs of an object and a box that are compared at once, which bounds the memory."""
MIN_POSITIVES = 9
"""Lower bound of `num_positives` for an image, about the number for one object."""


_sampling_seed: ContextVar[int | None] = ContextVar("sampling_seed", default=None)


@contextmanager
def sampling_seed(seed: int) -> Iterator[None]:
    """Make `sample_proposals` independent of other random draws, and of how a batch is split.

    The draws of PyTorch's own generators do not change either.
    """
    token = _sampling_seed.set(seed)
    try:
        yield
    finally:
        _sampling_seed.reset(token)


@dataclass(frozen=True)
class GroundTruth:
    """The objects of one image.

    Attributes:
        boxes: `(M, 4)` or `(M, 5)` float32.
        classes: `(M)` int64.
        counted: `(M)` bool, False for difficult objects: boxes assigned to them are ignored.
    """

    boxes: Tensor
    classes: Tensor
    counted: Tensor

    @staticmethod
    def from_targets(targets: Targets) -> list[GroundTruth]:
        """One for each image of a batch."""
        return [GroundTruth(t["boxes"].float(), t["labels"], ~t["difficult"]) for t in targets]

    def gather(self, match: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes `(N, D)` and classes `(N)` of the matched objects; arbitrary if not matched."""
        if not len(self.classes):
            return self.boxes.new_zeros(len(match), self.boxes.shape[1]), torch.zeros_like(match)
        index = match.clamp(min=0)
        return self.boxes[index], self.classes[index]

    def mask_ignored(self, match: Tensor) -> Tensor:
        """Replace matches `(N)` with objects that are not `counted` by `IGNORE_BOX`."""
        if not len(self.classes):
            return match
        return match.where((match < 0) | self.counted[match.clamp(min=0)], IGNORE_BOX)


def rows_per_chunk(columns: int) -> int:
    """Objects of a chunk of a matrix of objects and `columns` boxes."""
    return max(1, PAIRS_PER_CHUNK // max(1, columns))


def iou_chunks(
    function: Callable[[Tensor, Tensor], Tensor], objects: Tensor, boxes: Tensor
) -> Iterator[Tensor]:
    """The IoU of `(M, D)` objects and `(N, D)` boxes by `function`, as matrices of a few rows.

    Crowded windows have a thousand objects, and a window a hundred thousand anchors.
    """
    step = rows_per_chunk(len(boxes))
    for start in range(0, max(1, len(objects)), step):
        yield function(objects[start : start + step], boxes)


def match_by_iou(
    iou: Tensor | Iterable[Tensor],
    truth: GroundTruth,
    *,
    fg_threshold: float,
    bg_threshold: float,
    allow_low_quality: bool,
) -> Tensor:
    """Assign N boxes to objects: indices `(N)`, or `BACKGROUND`, or `IGNORE_BOX`.

    Args:
        iou: `(M, N)`, of objects and boxes, or its rows in chunks.
        truth: the M objects.
        fg_threshold: minimum IoU of a box with its best object to be assigned to it.
        bg_threshold: boxes whose highest IoU is lower are background.
        allow_low_quality: also assign to each object the boxes with which it has its highest IoU,
            whatever the value (Faster R-CNN, arXiv 1506.01497, section 3.1.2).
    """
    first = 0
    for chunk in [iou] if isinstance(iou, Tensor) else iou:
        if not len(chunk):
            return torch.full((chunk.shape[1],), BACKGROUND, device=chunk.device)
        value, index = chunk.max(dim=0)
        # of the boxes that are the best of an object, its IoU; zero for others
        forced, owner = (chunk * (chunk == chunk.amax(dim=1, keepdim=True))).max(dim=0)
        if first == 0:
            best_value, best_index, best_forced, best_owner = value, index, forced, owner
        else:
            best_index = (index + first).where(value > best_value, best_index)
            best_owner = (owner + first).where(forced > best_forced, best_owner)
            best_value, best_forced = best_value.maximum(value), best_forced.maximum(forced)
        first += len(chunk)
    match = best_index.where(best_value >= fg_threshold, IGNORE_BOX)
    match = match.where(best_value >= bg_threshold, BACKGROUND)
    if allow_low_quality:
        match = best_owner.where(best_forced > 0, match)
    return truth.mask_ignored(match)


def num_positives(match: Tensor) -> Tensor:
    """Normalisation of a focal loss summed over boxes: `(...)` from their match `(..., N)`.

    The papers divide by the number of positive boxes. Without objects that leaves the sum over all
    boxes, hundreds of times the loss of an image with objects: empty windows would dominate the
    validation loss, and training batches without objects would undo what others taught. Hence the
    lower bound `MIN_POSITIVES`.
    """
    return (match >= 0).sum(dim=-1).clamp(min=MIN_POSITIVES)


def sample_proposals(match: Tensor, count: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Sample `count` of N boxes by their match: indices, and a mask of valid ones, `(count)`.

    At most a fraction `positive_fraction` are positives; negatives fill the rest. If too few boxes
    are available, the remaining indices are invalid. Inside `sampling_seed` the sample depends only
    on the seed and on `match`.
    """
    count = min(count, len(match))
    generator = None
    if (seed := _sampling_seed.get()) is not None:
        generator = torch.Generator(match.device).manual_seed(seed)
    key = torch.rand(match.shape, device=match.device, generator=generator)
    positives = min(count, round(count * positive_fraction))
    first = key.where(match >= 0, -1.0).topk(positives).indices
    selected = torch.zeros_like(match, dtype=torch.bool).index_fill(0, first, True)
    key = (key + 1).where(selected & (match >= 0), key.where(match == BACKGROUND, -1.0))
    value, index = key.topk(count)
    return index, value >= 0
