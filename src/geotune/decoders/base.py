"""The contract of a decoder, and the few pieces that every decoder shares.

A decoder is built from an encoder's tap list, `Decoder(taps, num_outputs, **plain values)`, and
turns the encoder's `FeatureMaps` into logits `(B, num_outputs, h, w)` at the finest resolution
that it reaches. Who calls it resizes them to `features.image_size` and crops the padding. One that
answers for the image as a whole gives `(B, num_outputs)`.
"""

from __future__ import annotations

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor, nn

from geotune.types import FeatureMaps


class Decoder(Protocol):
    """Feature maps in, logits out."""

    def __call__(self, features: FeatureMaps) -> Tensor:
        """Maps `(B, C_i, H_i, W_i)`, one for each tap, to logits `(B, K, h, w)`, or `(B, K)`."""
        ...


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring `(B, C, H, W)` to `(B, C, *size)` bilinearly; the same tensor where it fits."""
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def spatial_size(x: Tensor) -> tuple[int, int]:
    """`(H, W)` of `(B, C, H, W)`."""
    return x.shape[-2], x.shape[-1]


def classifier_conv(channels: int, num_outputs: int, bias: bool = True) -> nn.Conv2d:
    """A 1x1 convolution from features to logits, with PyTorch's own initial weights.

    Weights near zero would be pushed one way by the commonest class in the first steps: after the
    ReLU before this layer every feature then speaks for that class, and a rare one is left with
    pixels whose features are all zero, which no gradient reaches.
    """
    return nn.Conv2d(channels, num_outputs, kernel_size=1, bias=bias)
