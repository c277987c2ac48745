"""The eight flips and quarter turns of a square."""

from __future__ import annotations

import torch
from torch import Tensor

COUNT = 8


def turn(pixels: Tensor, which: int) -> Tensor:
    """One of the eight ways `(0 to 7)` to lay `(..., H, W)`; 0 leaves it as it is.

    `which % 4` quarter turns against the clock, after a left-right flip from 4 on.
    """
    if which >= 4:
        pixels = torch.flip(pixels, (-1,))
    return torch.rot90(pixels, which % 4, (-2, -1))


def turn_back(pixels: Tensor, which: int) -> Tensor:
    """The inverse of `turn`: `turn_back(turn(x, k), k)` equals `x`, `(..., H, W)`."""
    pixels = torch.rot90(pixels, -(which % 4), (-2, -1))
    return torch.flip(pixels, (-1,)) if which >= 4 else pixels
