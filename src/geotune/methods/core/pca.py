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


class RunningCovariance:
    """Mean and covariance of features that arrive in batches, which are not kept.

    Sums in float64 of differences from the first batch's mean; on the CPU where the device has no
    float64.
    """

    def __init__(self) -> None:
        self.count = 0

    def add(self, feature: Tensor) -> None:
        """Add features `(B, C, h, w)` or `(B, C)`."""
        if feature.device.type == "mps":
            feature = feature.cpu()
        vectors = feature.double().movedim(1, -1).flatten(0, -2)
        if not self.count:
            self.shift = vectors.mean(0)
            self.sum = torch.zeros_like(self.shift)
            self.products = self.shift.new_zeros(len(self.shift), len(self.shift))
        vectors = vectors - self.shift  # the feature itself may be float64
        self.count += len(vectors)
        self.sum += vectors.sum(0)
        self.products.addmm_(vectors.T, vectors)

    def principal_axes(self, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The first `count` principal axes, in float64.

        Returns the mean `(C,)`, the axes `(d, C)`, their variances `(d,)` and the sum of the
        variances of all axes.
        """
        mean = self.sum / self.count
        covariance = (self.products - self.count * mean.outer(mean)) / max(1, self.count - 1)
        variances, axes = torch.linalg.eigh(covariance)
        first = variances[-count:].flip(0), axes[:, -count:].flip(1).T
        return mean + self.shift, first[1], first[0], variances.sum()

    def principal_components(self, count: int) -> tuple[Tensor, Tensor]:
        """The projection to the first `count` principal components.

        Returns the weight `(d, C, 1, 1)` and bias `(d,)` of a 1x1 convolution. Its outputs are
        centred and scaled by one common factor, so that their variances keep their ratios and
        average one.
        """
        mean, axes, variances, _ = self.principal_axes(count)
        scale = variances.clamp(min=0).mean().clamp(min=1e-12).rsqrt()
        weight = scale * axes
        return weight[..., None, None].float(), -(weight @ mean).float()
