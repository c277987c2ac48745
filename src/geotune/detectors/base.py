"""The contract of a detector: a decoder whose outputs are objects.

A detector is built from an encoder's taps as every decoder is, `kind(taps, classes, **values)`.
What it has to learn from depends on what is there (proposals are sampled by it), and whatever is
computed has to be computed inside the model for gradients to be exchanged between processes, so it
is handed the targets.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from geotune.boxes.structures import DetectorOutput
from geotune.types import FeatureMaps

Targets = Sequence[Mapping[str, Tensor]]
"""Of each image `boxes` `(M, D)`, `labels` `(M)` and `difficult` `(M)`."""


@runtime_checkable
class Detector(Protocol):
    """Feature maps in, losses and detections out."""

    oriented: bool

    def __call__(
        self, features: FeatureMaps, size: tuple[int, int], targets: Targets | None
    ) -> DetectorOutput:
        """Of maps `(B, C_i, H_i, W_i)` of images whose own size is `size` (H, W).

        Losses where there are `targets`, detections outside of training.
        """


def init_head_conv(convolution: nn.Conv2d) -> nn.Conv2d:
    """A convolution with the papers' initial values: small weights, and no bias at first."""
    nn.init.normal_(convolution.weight, std=0.01)
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    return convolution


def group_norm(channels: int) -> nn.GroupNorm:
    """Group norm in the papers' 32 groups, in fewer where a group would have a single channel.

    Of that nothing would be left on a map of one pixel.
    """
    return nn.GroupNorm(math.gcd(32, channels, max(1, channels // 2)), channels)
