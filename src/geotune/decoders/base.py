"""The decoder interface, and functions that decoders share.

A decoder is built from an encoder's taps and the number of outputs. It turns `FeatureMaps` into
logits `(B, num_outputs, h, w)` at the finest resolution that it reaches; the caller resizes them to
`features.image_size` and crops the padding. Image-level decoders return `(B, num_outputs)`.

Decoders are registered in `registry.py`; `docs/how-to/extending.md` shows how to add one.
"""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from geotune.types import FeatureMaps


class Decoder(Protocol):
    """Maps features to logits."""

    def __call__(self, features: FeatureMaps) -> Tensor:
        """Maps `(B, C_i, H_i, W_i)`, one per tap, to logits `(B, K, h, w)` or `(B, K)`."""
        ...


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize `(B, C, H, W)` bilinearly to `(B, C, *size)`; a no-op if the size is right."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def spatial_size(x: Tensor) -> tuple[int, int]:
    """`(H, W)` of `(B, C, H, W)`."""
    return x.shape[-2], x.shape[-1]


def classifier_conv(channels: int, num_outputs: int, bias: bool = True) -> nn.Conv2d:
    """A 1x1 convolution from features to logits, with PyTorch's default initialisation.

    With weights near zero, the most common class would drive all features in one direction in the
    first steps; after the preceding ReLU, pixels of rare classes would have all-zero features,
    which receive no gradient.
    """
    return nn.Conv2d(channels, num_outputs, kernel_size=1, bias=bias)
