"""Blend overlapping windows: the mean of their outputs, weighted by a raised cosine.

The weight of a window decreases towards its edges, where pixels have the least context, and is
normalised by the sum of all weights at a pixel, so there are no seams.
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
    """Weighted sums of the windows of one strip, in a buffer of one window's height.

    Windows are added row by row. `pop_rows` returns rows of pixels that no later window covers, so
    memory does not depend on the length of the strip.
    """

    def __init__(self, channels: int, width: int, window: int, device: torch.device) -> None:
        self.window = window
        self.weights = window_weights(window).to(device)
        self.sums = torch.zeros(channels, window, width, device=device)
        self.totals = torch.zeros(window, width, device=device)

    def add(self, outputs: Tensor, lefts: Sequence[int]) -> None:
        """Add windows `(B, K, window, window)`; `lefts` are their first columns in the strip."""
        for values, left in zip(outputs * self.weights, lefts, strict=True):
            columns = slice(left, left + self.window)
            self.sums[:, :, columns] += values
            self.totals[:, columns] += self.weights

    def pop_rows(self, rows: int) -> Tensor:
        """Return the blended first rows `(K, rows, width)`; pixels without windows are zero.

        The other rows move up, so the next windows start at the first row that was not returned.
        """
        blended = self.sums[:, :rows] / self.totals[:rows].clamp_min(1e-30)
        for layer in (*self.sums, self.totals):
            layer[: self.window - rows] = layer[rows:].clone()
            layer[self.window - rows :] = 0
        return blended
