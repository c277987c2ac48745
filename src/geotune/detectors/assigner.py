"""What a detector is told of an image, and which of its boxes stand for which object.

Everything here has a size that follows from the inputs' sizes alone: what does not count gets no
weight and is not left out. So a training step needs no look at values, its memory can be predicted
on fake tensors, and a GPU is never waited for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

BACKGROUND, NEITHER = -1, -2
"""In place of an object's index: what stands for none, and what is not learnt from."""
MIN_POSITIVES = 9
"""What an image counts as having where fewer boxes stand for its objects: about those of one."""


@dataclass(frozen=True)
class GroundTruth:
    """The objects of one image.

    Attributes:
        boxes: `(M, 4)` or `(M, 5)` float32.
        classes: `(M)` int64.
        counted: `(M)` bool; the others are objects too, but neither to be found nor wrong to find.
    """

    boxes: Tensor
    classes: Tensor
    counted: Tensor

    @staticmethod
    def of(targets: Sequence[Mapping[str, Tensor]]) -> list[GroundTruth]:
        """From targets as batches hold them: `boxes`, `labels` and `difficult` of each image."""
        return [GroundTruth(t["boxes"].float(), t["labels"], ~t["difficult"]) for t in targets]

    def gather(self, match: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes `(N, D)` and classes `(N)` of what was matched; of something where nothing was."""
        if not len(self.classes):
            return self.boxes.new_zeros(len(match), self.boxes.shape[1]), torch.zeros_like(match)
        index = match.clamp(min=0)
        return self.boxes[index], self.classes[index]

    def mask_ignored(self, match: Tensor) -> Tensor:
        """A match `(N)` in which what stands for such an object is `IGNORE_INDEX`."""
        if not len(self.classes):
            return match
        return match.where((match < 0) | self.counted[match.clamp(min=0)], NEITHER)


def match_by_iou(
    overlap: Tensor, truth: GroundTruth, *, least: float, none_below: float, best: bool
) -> Tensor:
    """For each of N boxes the index `(N)` of its object, or `BACKGROUND`, or `IGNORE_INDEX`.

    Args:
        overlap: IoU `(M, N)` of the objects with the boxes.
        truth: the objects.
        least: IoU from which a box stands for the object that it overlaps most.
        none_below: IoU below which it stands for none.
        best: whether the boxes that an object overlaps most stand for it however little that is
            (Faster R-CNN, arXiv 1506.01497, section 3.1.2).
    """
    if not len(overlap):
        return torch.full((overlap.shape[1],), BACKGROUND, device=overlap.device)
    value, index = overlap.max(dim=0)
    match = index.where(value >= least, NEITHER).where(value >= none_below, BACKGROUND)
    if best:
        mine = (overlap == overlap.amax(dim=1, keepdim=True)) & (overlap > 0)
        match = (overlap * mine).argmax(dim=0).where(mine.any(dim=0), match)
    return truth.mask_ignored(match)


def num_positives(match: Tensor) -> Tensor:
    """By how many a sum of focal losses over boxes `(..., N)` is divided, `(...)`, by their match.

    The papers' number is that of boxes that stand for an object. Of an image without one that would
    leave the sum over all of its places, hundreds of times what an image with objects has: a
    validation, most of whose windows are empty, would tell of nothing else, and a training batch
    without objects would undo what others taught.
    """
    return (match >= 0).sum(dim=-1).clamp(min=MIN_POSITIVES)


def sample_proposals(match: Tensor, count: int, positive_share: float) -> tuple[Tensor, Tensor]:
    """At random `count` of N boxes by their match: indices, and which of them count, `(count)`.

    At most `positive_share` stand for an object, the others for none. Where there are not enough
    of them, the rest of the indices do not count.
    """
    count = min(count, len(match))
    key = torch.rand(match.shape, device=match.device)
    positives = min(count, round(count * positive_share))
    first = key.where(match >= 0, -1.0).topk(positives).indices
    chosen = torch.zeros_like(match, dtype=torch.bool).index_fill(0, first, True)
    key = (key + 1).where(chosen & (match >= 0), key.where(match == BACKGROUND, -1.0))
    value, index = key.topk(count)
    return index, value >= 0
