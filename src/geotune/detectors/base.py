"""The detector interface: a decoder that predicts objects.

Detectors are built from an encoder's taps like other decoders. They receive the targets in
`forward` and compute their losses themselves: the losses depend on the targets, by which proposals
are sampled, and must be computed inside the model for distributed training to synchronise
gradients. Detectors are registered among the decoders in `registry.py`; see
`docs/how-to/extending.md`.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from geotune.boxes.structures import DetectorOutput, Targets
from geotune.types import FeatureMaps


@runtime_checkable
class Detector(Protocol):
    """Feature maps in, losses and detections out."""

    oriented: bool

    def __call__(
        self, features: FeatureMaps, size: tuple[int, int], targets: Targets | None
    ) -> DetectorOutput:
        """Process maps `(B, C_i, H_i, W_i)` of images of `size` (H, W), without padding.

        Returns losses if `targets` are given, and detections in evaluation mode.
        """

    def candidates(self, features: FeatureMaps, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Boxes `(B, N, D)` and class scores `(B, N, K)`, from which detections are selected.

        Their number does not depend on the images, as exported models need it.
        """


def init_head_conv(convolution: nn.Conv2d) -> nn.Conv2d:
    """Initialise as in the papers: normal weights with standard deviation 0.01, zero bias."""
    nn.init.normal_(convolution.weight, std=0.01)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return convolution


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm with the papers' 32 groups, or fewer to keep at least two channels in each.

    With one channel per group, a map of one pixel would be normalised to zero.
    """
    return nn.GroupNorm(math.gcd(32, channels, max(1, channels // 2)), channels)
