"""Average the predictions of several models, and of one model over turned images.

    image --turn--> model --turn back--> +
    image --turn--> model --turn back--> + --> mean, and how much the predictions differ
    ...

The eight orientations are those of the augmentation: a left-right flip if `orientation >= 4`, then
`orientation % 4` counterclockwise quarter turns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from geotune.boxes.candidate_pairs import BoxIndex
from geotune.boxes.iou import paired_iou
from geotune.boxes.oriented import ORIENTED, canonical, hull
from geotune.boxes.structures import Detections
from geotune.boxes.transforms import rotate90_flip
from geotune.inference.detection import DetectorFn
from geotune.inference.sliding_window import ModelFn

Orientations = Literal["none", "flips", "d4"]
ORIENTATIONS: dict[Orientations, tuple[int, ...]] = {
    "none": (0,),
    "flips": (0, 2, 4, 6),  # as it is, turned by 180 degrees, mirrored along both axes
    "d4": tuple(range(8)),
}
"""The orientations of `--tta`."""

Spread = Literal["none", "entropy", "binary-entropy", "deviation"]
"""What describes the members of an ensemble beside their mean."""

SAME_OBJECT = 0.5
"""IoU from which boxes of two members are the same object."""


def turn(images: Tensor, orientation: int) -> Tensor:
    """Images `(..., H, W)` in an orientation; sides are exchanged by an odd number of turns."""
    flipped = images.flip(-1) if orientation >= 4 else images
    return torch.rot90(flipped, orientation % 4, dims=(-2, -1))


def turn_back(images: Tensor, orientation: int) -> Tensor:
    """The inverse of `turn`."""
    turned = torch.rot90(images, -(orientation % 4), dims=(-2, -1))
    return turned.flip(-1) if orientation >= 4 else turned


def opposite(orientation: int) -> int:
    """The orientation that turns back; a mirrored one is its own."""
    return orientation if orientation >= 4 else -orientation % 4


@dataclass(frozen=True)
class Ensemble:
    """Predictions of one or several models in one or several orientations.

    Attributes:
        models: that take raw images `(B, C, H, W)`, and further inputs by name.
        orientations: of the images, see `turn`.
    """

    models: Sequence[Callable[..., Any]]
    orientations: Sequence[int] = (0,)

    def __len__(self) -> int:
        """The number of predictions of each image."""
        return len(self.models) * len(self.orientations)

    def __str__(self) -> str:
        """For notes: `2 models in 8 orientations`."""
        models = f"{len(self.models)} models" if len(self.models) > 1 else "one model"
        count = len(self.orientations)
        return f"{models} in {count} orientations" if count > 1 else models

    def predictions(self, images: Tensor, **known: Tensor) -> Iterator[tuple[int, Any]]:
        """The orientation and the output, still turned, of each member."""
        for model in self.models:
            for orientation in self.orientations:
                yield orientation, model(turn(images, orientation), **known)


def entropy(probabilities: Tensor) -> Tensor:
    """Shannon entropy over dimension 1, `(B, K, ...)` to `(B, 1, ...)`, from 0 to 1.

    Divided by that of `K` equally likely classes.
    """
    total: Tensor = torch.special.entr(probabilities).sum(dim=1, keepdim=True)
    return total / math.log(probabilities.shape[1])


def binary_entropy(probabilities: Tensor) -> Tensor:
    """Mean entropy of the decisions for each of `K` independent labels, `(B, 1)`, from 0 to 1."""
    both: Tensor = torch.special.entr(probabilities) + torch.special.entr(1 - probabilities)
    return both.mean(dim=1, keepdim=True) / math.log(2)


def averaged(members: Ensemble, spread: Spread = "none") -> ModelFn:
    """A model whose outputs are means over the members, of maps `(B, K, H, W)` or rows `(B, K)`.

    With `spread`, one channel more: the mean entropy of the members' probabilities, or the standard
    deviation of their values (only for K = 1).
    """

    def answer(images: Tensor, **known: Tensor) -> Tensor:
        outputs = (  # one at a time: those of all members may not fit into memory
            turn_back(output.float(), orientation) if output.dim() > 2 else output.float()
            for orientation, output in members.predictions(images, **known)
        )
        if spread == "deviation":
            values = torch.stack(list(outputs))
            return torch.cat([values.mean(dim=0), values.std(dim=0, correction=0)], dim=1)
        if spread != "none":
            measure = entropy if spread == "entropy" else binary_entropy
            outputs = (torch.cat([each, measure(each)], dim=1) for each in outputs)
        return reduce(torch.add, outputs) / len(members)

    return answer


def fused(members: Ensemble) -> DetectorFn:
    """A detector whose objects are those of all members, each once.

    Boxes of one class that overlap by `SAME_OBJECT` are one object, at most one from each member.
    Its box is the mean weighted by the scores (weighted boxes fusion, arXiv 1910.13302), its score
    the sum of the scores divided by the number of members: one that misses the object counts as 0.
    """

    def answer(images: Tensor, **known: Tensor) -> list[Detections]:
        height, width = images.shape[-2:]
        found: list[list[Detections]] = [[] for _ in images]
        for orientation, outputs in members.predictions(images, **known):
            shape = (width, height) if orientation % 2 else (height, width)
            back = opposite(orientation)
            for of_image, each in zip(found, outputs, strict=True):
                boxes = rotate90_flip(each.boxes, back, shape)
                of_image.append(Detections(boxes, each.scores, each.classes))
        return [fuse(of_image) if len(members) > 1 else of_image[0] for of_image in found]

    return answer


def fuse(members: Sequence[Detections]) -> Detections:
    """The objects that several members detected in one image, best first; see `fused`."""
    boxes, scores, classes = (
        torch.cat([getattr(each, name) for each in members])
        for name in ("boxes", "scores", "classes")
    )
    member = np.repeat(np.arange(len(members)), [len(each.scores) for each in members])
    order = scores.argsort(descending=True, stable=True)
    boxes, scores, classes = boxes[order], scores[order], classes[order]
    member = member[order.numpy(force=True)]
    clusters = _clusters(boxes, classes, member)
    if not clusters:
        return Detections(boxes, scores, classes)
    means = torch.stack([_mean_box(boxes[each].double(), scores[each]) for each in clusters])
    sums = torch.stack([scores[each].sum() for each in clusters]) / len(members)
    objects = Detections(means.to(boxes), sums, classes[[each[0] for each in clusters]])
    return objects[sums.argsort(descending=True, stable=True)]


def _clusters(boxes: Tensor, classes: Tensor, member: np.ndarray) -> list[list[int]]:
    """Indices of the boxes of each object; boxes are sorted best first."""
    hulls = hull(boxes)
    i, j = BoxIndex(hulls).query(hulls)
    relevant = (j > i) & (classes[i] == classes[j])
    i, j = i[relevant], j[relevant]
    same = paired_iou(boxes, boxes, i, j) >= SAME_OBJECT
    partners: dict[int, list[int]] = {}
    for first, second in zip(i[same].tolist(), j[same].tolist(), strict=True):
        partners.setdefault(first, []).append(second)
    taken = np.zeros(len(boxes), dtype=bool)
    clusters = []
    for first in range(len(boxes)):
        if taken[first]:
            continue
        cluster, seen = [first], {member[first]}
        for second in sorted(partners.get(first, [])):
            if not taken[second] and member[second] not in seen:
                cluster.append(second)
                seen.add(member[second])
        taken[cluster] = True
        clusters.append(cluster)
    return clusters


def _mean_box(boxes: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean of boxes `(N, D)` of one object; the first has the best score.

    Oriented boxes are first written with the angle closest to that of the first, with their sides
    exchanged where that is closer.
    """
    if boxes.shape[-1] == ORIENTED:
        quarter = math.pi / 2
        turns = torch.round((boxes[0, 4] - boxes[:, 4]) / quarter)
        exchanged = turns.remainder(2) == 1
        sides = torch.where(exchanged[:, None], boxes[:, [3, 2]], boxes[:, 2:4])
        angles = boxes[:, 4] + turns * quarter
        boxes = torch.cat([boxes[:, :2], sides, angles[:, None]], dim=1)
    weights = weights.to(boxes).clamp(min=torch.finfo(torch.float32).tiny)
    mean = (boxes * (weights / weights.sum())[:, None]).sum(dim=0)
    return canonical(mean) if boxes.shape[-1] == ORIENTED else mean
