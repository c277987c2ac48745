"""The contract of a detector: a decoder whose outputs are objects.

A detector is built from an encoder's taps as every decoder is, `kind(taps, classes, **values)`.
What it has to learn from depends on what is there (proposals are sampled by it), and whatever is
computed has to be computed inside the model for gradients to be exchanged between processes, so it
is handed the targets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from geotune.boxes.detected import Detected
from geotune.types import FeatureMaps

Targets = Sequence[Mapping[str, Tensor]]
"""Of each image `boxes` `(M, D)`, `labels` `(M)` and `difficult` `(M)`."""


@runtime_checkable
class Detector(Protocol):
    """Feature maps in, losses and detections out."""

    oriented: bool

    def __call__(
        self, features: FeatureMaps, size: tuple[int, int], targets: Targets | None
    ) -> Detected:
        """Of maps `(B, C_i, H_i, W_i)` of images whose own size is `size` (H, W).

        Losses where there are `targets`, detections outside of training.
        """


def small_convolution(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    """A convolution that keeps a map's size, with small first weights, as detectors' heads have."""
    layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
