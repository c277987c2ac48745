r"""A model that reconstructs the hidden patches of images, with a frozen teacher.

Used to continue a backbone's pretraining on images without labels (`tasks/reconstruct.py`):

    image --> hide patches --> encoder --> maps --> decoder --> image
      |                                     |
      |                                projections   cosine distance
      |                                     |
      \--> teacher (frozen, no gradient) -> maps

The teacher is the backbone as it was before the method changed it. A side network leaves the
backbone as it is, so that the same weights serve both; an updated or adapted backbone gets a
teacher that shares all tensors that do not train, and copies of the others.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geotune.backbones.base import Backbone
from geotune.decoders.base import resize
from geotune.errors import GeotuneError
from geotune.methods.core.encoder import Encoder
from geotune.methods.core.injection import is_inserted
from geotune.methods.core.quantization import quantize_frozen
from geotune.methods.core.reader import level_indices
from geotune.model import Model
from geotune.tasks.reconstruct import Reconstruction
from geotune.types import Normalization


def copy_of_backbone(backbone: Backbone) -> Backbone:
    """The backbone in modules of its own, which hold the same tensors.

    A method may then insert modules into the backbone; see `as_teacher`.
    """
    tensors = {id(tensor): tensor for tensor in (*backbone.parameters(), *backbone.buffers())}
    return copy.deepcopy(backbone, tensors)


@torch.no_grad()
def as_teacher(original: Backbone, encoder: Encoder) -> Backbone | None:
    """The frozen teacher of an encoder, or None if the encoder's own backbone serves as one.

    `original` is the result of `copy_of_backbone`, before the method was attached.
    """
    inserted = any(is_inserted(module) for module in encoder.backbone.modules())
    if encoder.backbone_frozen and not inserted:
        return None
    for module in original.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                own = nn.Parameter(parameter.detach().clone(), requires_grad=False)
                module.register_parameter(name, own)
        if encoder.backbone_trains:  # its batch norm statistics change
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.clone()
    if encoder.method is not None and encoder.method.frozen_precision != "fp32":
        quantize_frozen(original, encoder.method.frozen_precision)
    return original.eval()


class ReconstructionModel(Model):
    """Maps raw images and their hidden patches to a `Reconstruction`.

    Args:
        normalization: see `Model`.
        encoder: see `Model`.
        decoder: with an output channel for each band and date.
        patch: side in pixels of the patches that will be hidden.
        with_teacher: compare the encoder's maps with the teacher's.
        teacher: from `as_teacher`.

    Attributes:
        stages: taps of the teacher with which the last maps of the encoder are compared.

    Raises `GeotuneError` if nothing in the encoder trains.
    """

    def __init__(
        self,
        normalization: Normalization,
        encoder: Encoder,
        decoder: nn.Module,
        *,
        patch: int,
        with_teacher: bool,
        teacher: Backbone | None = None,
    ) -> None:
        super().__init__(normalization, encoder, decoder)
        self.patch = patch
        if not encoder.trainable_names():
            raise GeotuneError(
                "method.kind: trains nothing but the decoder of task.kind reconstruct, which is "
                "not used afterwards; use full, lora, est or another method",
                code="settings-incompatible",
                key="method.kind",
            )
        self.teacher = teacher
        self.stages: tuple[int, ...] = ()
        self.projections = nn.ModuleList()
        if with_teacher:
            taps = (teacher or encoder.backbone).taps
            levels = level_indices(teacher or encoder.backbone)
            student = encoder.reader.taps[-len(levels) :]
            self.stages = tuple(levels[-len(student) :])
            self.projections.extend(
                _projection(own.channels, taps[i].channels)
                for own, i in zip(student, self.stages, strict=True)
            )

    def forward(
        self,
        images: Tensor | Mapping[str, Tensor],
        *,
        time: Tensor | None = None,
        location: Tensor | None = None,
        mask: Tensor | None = None,
        features: Mapping[str, Tensor] | None = None,
        targets: Any = None,
    ) -> Reconstruction:
        """Reconstruct images.

        Args:
            images: as in `Model.forward`.
            time: as in `Backbone.forward`.
            location: as in `Backbone.forward`.
            mask: `(B, h, w)`, the hidden patches of a regular grid; they get the value of missing
                pixels, by default the mean of their band.
            features: must be None: the features of an image depend on its hidden patches.
            targets: not read.
        """
        if mask is None or features is not None:
            raise ValueError("a reconstruction needs a mask, and cannot start from features")
        x = self._normalized(images)
        goals: tuple[Tensor, ...] = ()
        if self.stages:  # first, while no activations of the encoder are stored
            teacher: Any = self.teacher or self.encoder.backbone
            with torch.no_grad():
                goals = teacher(x, time=time, location=location, taps=self.stages).maps
        maps = self.encoder(self._hide(x, mask), time=time, location=location)
        outputs: Tensor = self.decode(maps, (x.shape[-2], x.shape[-1]))
        compared = maps.maps[len(maps.maps) - len(goals) :]
        distances = tuple(
            _distance(projection, own, goal)
            for projection, own, goal in zip(self.projections, compared, goals, strict=True)
        )
        return Reconstruction(outputs, x.reshape(outputs.shape), distances, maps.image_size)

    def _hide(self, x: Tensor, mask: Tensor) -> Tensor:
        """Set hidden patches of `(B, C, ..., H, W)` to the fill value of their band."""
        patch = x.shape[-1] // mask.shape[-1]
        hidden = mask.repeat_interleave(patch, -2).repeat_interleave(patch, -1)
        extra = (1,) * (x.ndim - 3)
        fill = self.fill.view(1, -1, *(1,) * (x.ndim - 2))
        return torch.where(hidden.view(len(x), *extra, *hidden.shape[-2:]), fill, x)

    def calibrate(self, batches: Iterable[Mapping[str, Tensor]]) -> None:
        """See `Model.calibrate`: with whole images."""
        super().calibrate({k: v for k, v in b.items() if k != "mask"} for b in batches)

    def example(self, window: int) -> dict[str, Tensor]:
        """See `Model.example`."""
        side = window // self.patch
        mask = torch.zeros(1, side, side, dtype=torch.bool)
        return {**super().example(window), "mask": mask}

    def train(self, mode: bool = True) -> ReconstructionModel:
        """Set the training mode; the teacher stays in evaluation mode."""
        super().train(mode)
        if self.teacher is not None:
            self.teacher.eval()
        return self


def _projection(channels: int, teacher_channels: int) -> nn.Conv2d:
    """A linear projection to the teacher's channels; of equal ones it starts as the identity."""
    projection = nn.Conv2d(channels, teacher_channels, 1)
    if channels == teacher_channels:
        nn.init.dirac_(projection.weight)
        nn.init.zeros_(projection.bias)  # type: ignore[arg-type]
    return projection


def _distance(projection: nn.Module, own: Tensor, goal: Tensor) -> Tensor:
    """`1 - cos` of projected maps and the teacher's `(B, C, h, w)` at each position, `(B, h, w)`.

    Finer maps are averaged over the teacher's cells before, coarser ones resized after they are
    projected.
    """
    grid = (goal.shape[-2], goal.shape[-1])
    if own.shape[-1] > grid[-1]:
        own = F.adaptive_avg_pool2d(own, grid)
    projected = resize(projection(own), grid)
    return 1 - F.cosine_similarity(projected.float(), goal.float(), dim=1)
