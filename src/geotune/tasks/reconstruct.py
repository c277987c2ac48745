"""Masked reconstruction of images without labels (continual pretraining).

As in GFM ("Towards Geospatial Foundation Models via Continual Pretraining", arXiv 2302.04476):

    L = mean |y - x| over hidden pixels  +  w / S sum_s mean_p (1 - cos(P_s f_s(p), t_s(p)))

x: normalised image, y: prediction; f_s: features of the model, which sees the visible patches only;
t_s: features of the frozen original backbone, the teacher, of the whole image; P_s: a trained
linear projection; s: the S stages, p: the positions of their maps.

Choices of ours: all stages count, not one; hidden pixels have the mean of their band; patches are
16 pixels wide; P_s starts as the identity where the channels are equal.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from geotune.config.task_options import ReconstructOptions
from geotune.metrics.reconstruction_metrics import ReconstructionMetrics
from geotune.tasks.step_loss import LossFromTerms

HIDDEN = 2
"""State of the pixels to reconstruct; 0: no data, 1: visible (`data/labels/pixel_data.py`)."""


@dataclass(frozen=True)
class Reconstruction:
    """Predicted images of a batch, and what they are compared with.

    Attributes:
        prediction: normalised, `(B, C, H, W)`; dates are further bands.
        image: the whole image, likewise; missing pixels have the fill value.
        distances: `1 - cos` to the teacher's features by stage, `(B, h, w)` each; empty without a
            teacher.
        padded_size: `(H, W)` of the images that the maps of `distances` cover.
    """

    prediction: Tensor
    image: Tensor
    distances: tuple[Tensor, ...]
    padded_size: tuple[int, int]

    def __getitem__(self, windows: slice) -> Reconstruction:
        """Some of the windows."""
        return Reconstruction(
            self.prediction[windows],
            self.image[windows],
            tuple(distance[windows] for distance in self.distances),
            self.padded_size,
        )

    def __len__(self) -> int:
        return len(self.prediction)


class Reconstruct(LossFromTerms):
    """Loss and metrics of `Reconstruction`s; targets are pixel states `(B, C, H, W)`, uint8."""

    classes: tuple[str, ...] = ("image",)
    main_metric: ClassVar[str] = "masked_l1"
    lower_is_better: ClassVar[tuple[str, ...]] = ("masked_l1", "cosine_distance")
    output_kind: ClassVar[str] = "none"

    def __init__(self, options: ReconstructOptions) -> None:
        self.teacher_weight = options.teacher_weight
        self.patch = options.patch

    @property
    def num_outputs(self) -> int:
        """Not known to the task: a channel for each band and date, see `ReconstructionModel`."""
        raise NotImplementedError

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names that `metrics().compute()` returns."""
        return ("masked_l1", "cosine_distance") if self.teacher_weight else ("masked_l1",)

    def loss_sums(self, outputs: Reconstruction, states: Tensor) -> dict[str, Tensor]:
        """See `LossTerms`."""
        error = (outputs.prediction.float() - outputs.image).abs()
        sums = {"l1": torch.where(states == HIDDEN, error, 0).sum()}
        share = self.teacher_weight / max(1, len(outputs.distances))
        for stage, distance in enumerate(outputs.distances):
            known = positions_with_data(states, distance, outputs.padded_size)
            sums[f"stage{stage}"] = share * (known * distance).sum()
        return sums

    def loss_counts(self, outputs: Reconstruction, states: Tensor) -> dict[str, Tensor]:
        """Hidden pixels of all bands, and positions with data of each stage."""
        counts = {"l1": (states == HIDDEN).sum()}
        for stage, distance in enumerate(outputs.distances):
            known = positions_with_data(states, distance, outputs.padded_size)
            counts[f"stage{stage}"] = known.sum()
        return counts

    def metrics(self) -> ReconstructMetrics:
        """New, empty metrics."""
        return ReconstructMetrics(self)

    def score(self, outputs: Reconstruction, states: Tensor) -> float:
        """Minus the mean absolute error of the hidden pixels of one window; NaN without any."""
        hidden = states == HIDDEN
        if not hidden.any():
            return math.nan
        return -float((outputs.prediction.float() - outputs.image).abs()[hidden].mean())

    def postprocess(self, outputs: Reconstruction) -> Tensor:
        """Normalised predictions `(B, C, H, W)`."""
        return outputs.prediction.float()

    def predict(self, outputs: Reconstruction) -> Tensor:
        """Normalised predictions and images, `(B, 2, C, H, W)`."""
        return torch.stack([outputs.prediction.float(), outputs.image.float()], dim=1)

    def example_targets(self, window: int) -> Tensor:
        """See `Task`; one channel stands for all bands."""
        return torch.zeros((1, 1, window, window), dtype=torch.uint8)


def positions_with_data(states: Tensor, maps: Tensor, padded_size: tuple[int, int]) -> Tensor:
    """Which positions of `maps` `(B, h, w)` see a pixel with data, float32 `(B', h, w)`.

    Args:
        states: of the pixels, `(B', C, H, W)`, of any number of windows.
        maps: cover images of `padded_size`, whose padding has no data.
        padded_size: `(H, W)`.
    """
    known = (states != 0).any(dim=1).float()
    height, width = padded_size
    known = F.pad(known, (0, width - known.shape[-1], 0, height - known.shape[-2]))
    return F.adaptive_max_pool2d(known, (maps.shape[-2], maps.shape[-1]))


class ReconstructMetrics(ReconstructionMetrics):
    """`ReconstructionMetrics` of the outputs of a `Reconstruct` task."""

    def __init__(self, task: Reconstruct) -> None:
        super().__init__(task.metric_names)

    @torch.no_grad()
    def update(self, outputs: Reconstruction, states: Tensor) -> None:
        """Add outputs and pixel states of a batch."""
        stages = []
        for distance in outputs.distances:
            known = positions_with_data(states, distance, outputs.padded_size)
            stages.append((known * distance).sum((1, 2)) / known.sum((1, 2)))  # NaN without data
        distances = (
            torch.stack(stages).mean(0) if stages else outputs.image.new_full((1,), math.nan)
        )
        errors = (outputs.prediction.float() - outputs.image).abs()
        self.add(errors, states == HIDDEN, distances.float().expand(len(outputs)))
