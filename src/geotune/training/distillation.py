"""A student beside its teacher's cached outputs: what the loss of a distillation compares."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.feature_cache.teacher_cache import OUTPUTS, Teacher, map_name, taught_maps
from geotune.methods.core.encoder import Encoder
from geotune.model import Model, resize_outputs
from geotune.tasks.base import Task
from geotune.tasks.distillation import DistillationLoss, DistilledOutputs
from geotune.types import Batch
from geotune.utils.feature_encoding import DecodedFeatures


class Distillation(nn.Module):
    """Projects a student's maps to those of its teacher; the teacher's model is not part of it.

    Each map of the teacher is compared with the student's map of the nearest stride, the deepest
    one of several.

    Args:
        encoder: of the student.
        task: of the student.
        teacher: what is learned from it.
        seed: of the projections' initial weights.

    Attributes:
        teacher: identifies it, in checkpoints.
        loss: the loss terms of the outputs.
        projections: 1x1 convolutions, one per map of the teacher; never part of an adapter.
    """

    def __init__(self, encoder: Encoder, task: Task, teacher: Teacher, *, seed: int) -> None:
        super().__init__()
        self.teacher = teacher.adapter
        self.loss = DistillationLoss(task, teacher.task, teacher.options, teacher.size_divisor)
        own = taught_maps(encoder)
        self.pairs = [
            (min(own, key=lambda j: (abs(math.log(own[j].stride / tap.stride)), -j)), index)
            for index, tap in teacher.maps.items()
        ]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.projections = nn.ModuleList(
                nn.Conv2d(own[student].channels, teacher.maps[index].channels, kernel_size=1)
                for student, index in self.pairs
            )

    def forward(self, model: Model, batch: Batch) -> DistilledOutputs:
        """Run the student on a batch, whose samples carry what the teacher gave."""
        maps, size = model.encode(**batch.inputs)
        outputs = model.decode(maps, size)
        taught = DecodedFeatures(batch.teacher)
        divisor = self.loss.size_divisor
        padded = (size[0] + -size[0] % divisor, size[1] + -size[1] % divisor)
        teacher_outputs = None
        if OUTPUTS in taught:
            teacher_outputs = taught[OUTPUTS]
            if outputs.ndim == 2:
                teacher_outputs = teacher_outputs.flatten(1)
            teacher_outputs = resize_outputs(teacher_outputs, padded, size)
        pairs = []
        for (student, index), projection in zip(self.pairs, self.projections, strict=True):
            target = taught[map_name(index)]
            grid = (target.shape[-2], target.shape[-1])
            resampled = resample(maps.maps[student], maps.image_size, grid, padded)
            pairs.append((projection(resampled), target))
        return DistilledOutputs(outputs, teacher_outputs, pairs)


def resample(
    maps: Tensor, size: tuple[int, int], grid: tuple[int, int], grid_size: tuple[int, int]
) -> Tensor:
    """Maps at the cells of another grid, both with their first pixel at that of the image.

    Args:
        maps: `(B, C, h, w)`.
        size: height and width in pixels of what they cover.
        grid: rows and columns of the other grid.
        grid_size: height and width in pixels of what it covers.

    Returns `(B, C, *grid)` in float32, interpolated bilinearly at the centres of the cells.
    """
    if maps.shape[-2:] == grid and size == grid_size:
        return maps.float()
    y, x = (
        (torch.arange(n, device=maps.device) + 0.5) * (2 * pixels / n / own) - 1
        for n, pixels, own in zip(grid, grid_size, size, strict=True)
    )
    centres = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)
    return F.grid_sample(
        maps.float(),
        centres.expand(len(maps), -1, -1, -1),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
