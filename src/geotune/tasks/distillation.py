"""The loss of a student that learns from a teacher's outputs and feature maps, besides the labels.

    loss = L(s) + a T^2 KL(softmax(t / T) || softmax(s / T)) + b mean(1 - cos(P(f_s), f_t))

`L` is the task's loss, `t` and `s` are the outputs of teacher and student, `T` is the temperature
(Hinton et al., Distilling the Knowledge in a Neural Network, arXiv 1503.02531), `f_t` and `f_s`
their feature maps, and `P` a 1x1 convolution that is trained and then dropped (FitNets, arXiv
1412.6550, with the cosine distance in place of the squared one). Pixels without data count in
neither difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from geotune.config.distill_options import DistillOptions
from geotune.tasks.base import Task
from geotune.types import Batch

OUTPUTS, FEATURES = "teacher_outputs", "teacher_features"
"""Names of the terms; that of features is followed by the number of the map."""


@dataclass(frozen=True)
class DistilledOutputs:
    """What a student and its teacher say of the same windows.

    Attributes:
        outputs: of the student, as its task takes them.
        teacher_outputs: in the same shape; None if they are not used.
        maps: pairs `(B, C, h, w)` of the student, projected and resampled, and the teacher.
    """

    outputs: Any
    teacher_outputs: Tensor | None
    maps: Sequence[tuple[Tensor, Tensor]]


class DistillationLoss:
    """`LossTerms` of `DistilledOutputs`; the targets are the `Batch` of the windows.

    Args:
        task: of the student.
        teacher_task: it may standardise values otherwise.
        options: weights and temperature.
        size_divisor: the teacher pads images at the right and bottom to a multiple of it.
    """

    def __init__(
        self, task: Task, teacher_task: Task, options: DistillOptions, size_divisor: int
    ) -> None:
        self.task = task
        self.teacher_task = teacher_task
        self.options = options
        self.size_divisor = size_divisor

    def loss_sums(self, outputs: DistilledOutputs, batch: Batch) -> dict[str, Tensor]:
        """The sums of the task, then those of both differences, with their weights."""
        options = self.options
        sums = dict(self.task.loss_sums(outputs.outputs, batch.targets))
        if outputs.teacher_outputs is not None:
            distance = self._output_distance(outputs.outputs, outputs.teacher_outputs)
            weights = self._output_weights(batch, distance.ndim)
            sums[OUTPUTS] = options.outputs_weight * (weights * distance).sum()
        share = options.features_weight / max(1, len(outputs.maps))
        for number, (student, teacher) in enumerate(outputs.maps):
            distance = 1 - F.cosine_similarity(student.float(), teacher.float(), dim=1)
            weights = self._grid_weights(batch, teacher)
            sums[f"{FEATURES}{number}"] = share * (weights * distance).sum()
        return sums

    def loss_counts(self, outputs: DistilledOutputs, batch: Batch) -> dict[str, Tensor]:
        """The counts of the task, the valid pixels or images, and the valid area of each map."""
        counts = dict(self.task.loss_counts(outputs.outputs, batch.targets))
        if outputs.teacher_outputs is not None:
            counts[OUTPUTS] = self._output_weights(batch, outputs.teacher_outputs.ndim - 1).sum()
        for number, (_, teacher) in enumerate(outputs.maps):
            counts[f"{FEATURES}{number}"] = self._grid_weights(batch, teacher).sum()
        return counts

    def _output_distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Of outputs `(B, K, H, W)` or `(B, K)`, by pixel or image: `(B, H, W)` or `(B,)`."""
        student, teacher = student.float(), teacher.float()
        if hasattr(self.task, "std"):  # numbers, in units of the labels' standard deviation
            mean, std = getattr(self.task, "mean", 0.0), self.task.std
            values = (self.teacher_task.postprocess(teacher) - mean) / std
            return F.smooth_l1_loss(student, values, reduction="none").squeeze(1)
        temperature = self.options.temperature
        student, teacher = student / temperature, teacher / temperature
        if getattr(self.task, "multilabel", False):
            distance = bernoulli_divergence(student, teacher).mean(dim=1)
        else:
            distance = softmax_divergence(student, teacher)
        return temperature**2 * distance

    def _output_weights(self, batch: Batch, ndim: int) -> Tensor:
        """1 for pixels `(B, H, W)` with data, or for images `(B,)` with any, else 0."""
        valid = valid_pixels(batch.inputs["images"])
        return (valid if ndim == 3 else valid.flatten(1).any(dim=1)).float()

    def _grid_weights(self, batch: Batch, maps: Tensor) -> Tensor:
        """The share of pixels with data in each cell of maps `(B, C, h, w)`: `(B, h, w)`."""
        valid = valid_pixels(batch.inputs["images"]).float()
        height, width = valid.shape[-2:]
        padded = F.pad(valid, (0, -width % self.size_divisor, 0, -height % self.size_divisor))
        grid = (maps.shape[-2], maps.shape[-1])
        return F.adaptive_avg_pool2d(padded.unsqueeze(1), grid).squeeze(1)


def softmax_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """`KL(softmax(teacher) || softmax(student))` of logits `(B, K, ...)`: `(B, ...)`."""
    log_p, log_q = teacher.log_softmax(dim=1), student.log_softmax(dim=1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=1)


def bernoulli_divergence(student: Tensor, teacher: Tensor) -> Tensor:
    """KL divergence of each class's `sigmoid(teacher)` from `sigmoid(student)`, in their shape."""
    p = teacher.sigmoid()
    yes = F.logsigmoid(teacher) - F.logsigmoid(student)
    no = F.logsigmoid(-teacher) - F.logsigmoid(-student)
    return p * yes + (1 - p) * no


def valid_pixels(images: Tensor) -> Tensor:
    """Pixels of images `(B, C, ..., H, W)` where any band has data at any date: `(B, H, W)`."""
    return ~torch.isnan(images).flatten(1, -3).all(dim=1)
