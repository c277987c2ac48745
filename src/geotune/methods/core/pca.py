"""Principal component analysis of taps, for EST's `projection_init`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class FixedProjection(nn.Module):
    """A 1x1 convolution that does not train; its buffers are stored in the adapter.

    Its input is not saved for the backward pass.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        start = nn.Conv2d(channels, width, 1)
        self.register_buffer("weight", start.weight.detach())
        self.register_buffer("bias", start.bias.detach())  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, h, w)` to `(B, d, h, w)`."""
        return F.conv2d(x, self.weight, self.bias)


def principal_components(feature: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Fit a projection of features `(B, C, h, w)` to their first `count` principal components.

    Returns the weight `(d, C, 1, 1)` and bias `(d,)` of a 1x1 convolution. Its outputs are centred
    and scaled by one common factor, so that their variances keep their ratios and average one.
    """
    vectors = feature.double().movedim(1, -1).flatten(0, -2)
    mean = vectors.mean(0)
    centred = vectors - mean
    variances, axes = torch.linalg.eigh(centred.T @ centred / max(1, len(centred) - 1))
    variances, axes = variances[-count:].flip(0), axes[:, -count:].flip(1)
    scale = variances.clamp(min=0).mean().clamp(min=1e-12).rsqrt()
    weight = scale * axes.T
    return weight[..., None, None].to(feature.dtype), -(weight @ mean).to(feature.dtype)
