"""Resize maps between strides: how the side stream of a plain ViT becomes a pyramid."""

from __future__ import annotations

from torch import Tensor, nn


def pyramid_scales(stride: float) -> list[float]:
    """Return the scales that give strides P/4, P/2, P and 2P, without those below one pixel."""
    return [scale for scale in (4.0, 2.0, 1.0, 0.5) if stride / scale >= 1]


class StrideResize(nn.Module):
    """`(B, C, h, w)` to `(B, C, scale h, scale w)`: transposed convolutions up, pooling down."""

    def __init__(self, channels: int, scale: float) -> None:
        layers: list[nn.Module] = []
        while scale > 1:
            if layers:
                layers.append(nn.GELU())
            layers.append(nn.ConvTranspose2d(channels, channels, 2, stride=2))
            scale /= 2
        if scale < 1:
            layers.append(nn.MaxPool2d(round(1 / scale), ceil_mode=True))
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, C, h, w)` to `(B, C, scale h, scale w)`, rounding up."""
        result: Tensor = self.layers(x)
        return result
