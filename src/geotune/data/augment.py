"""What makes training windows more various: flips, quarter turns, and other light."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
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


def relight(
    image: Tensor, rng: np.random.Generator, amount: float, spread: Sequence[float]
) -> Tensor:
    """An image `(C, H, W)` under other light: `gain x + offset`, the same for all its pixels.

    The gain is log-normal around 1 and the offset normal around 0 in units of each band's
    `spread`, both with standard deviation `amount`. Scenes differ so in season, haze and stretch.
    """
    gain = float(np.exp(amount * rng.standard_normal()))
    offset = amount * float(rng.standard_normal())
    return gain * image + offset * torch.tensor(spread, dtype=image.dtype).view(-1, 1, 1)


def turn_back(pixels: Tensor, which: int) -> Tensor:
    """The inverse of `turn`: `turn_back(turn(x, k), k)` equals `x`, `(..., H, W)`."""
    pixels = torch.rot90(pixels, -(which % 4), (-2, -1))
    return torch.flip(pixels, (-1,)) if which >= 4 else pixels
