"""Blending overlapping windows: a mean of their answers, weighted by a raised cosine.

A window's weight falls smoothly towards its edges, where a network sees least around a pixel,
and is divided by the sum of all weights at the pixel, so that no seam shows between windows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def window_weights(window: int) -> Tensor:
    """Weights `(window, window)`: `sin^2` along each axis, above zero everywhere."""
    position = (torch.arange(window, dtype=torch.float64) + 0.5) / window
    axis = torch.sin(math.pi * position) ** 2
    return torch.outer(axis, axis).float()


class Blender:
    """Weighted sums of the windows of one strip, as high as one window.

    Windows come row by row. As soon as no later window reaches a row of pixels, `take` gives
    its blend and moves on, so that memory does not depend on the strip's length.
    """

    def __init__(self, channels: int, width: int, window: int, device: torch.device) -> None:
        self.window = window
        self.weights = window_weights(window).to(device)
        self.sums = torch.zeros(channels, window, width, device=device)
        self.totals = torch.zeros(window, width, device=device)

    def add(self, outputs: Tensor, lefts: Sequence[int]) -> None:
        """Add windows `(B, K, window, window)` whose first columns in the strip are `lefts`."""
        for values, left in zip(outputs * self.weights, lefts, strict=True):
            columns = slice(left, left + self.window)
            self.sums[:, :, columns] += values
            self.totals[:, columns] += self.weights

    def pop_rows(self, rows: int) -> Tensor:
        """The blend `(K, rows, width)` of the first rows, zero where no window was added.

        What is left moves up; the next windows start at the row after those taken.
        """
        blend = self.sums[:, :rows] / self.totals[:rows].clamp_min(1e-30)
        for layer in (*self.sums, self.totals):
            layer[: self.window - rows] = layer[rows:].clone()
            layer[self.window - rows :] = 0
        return blend
