"""What makes training windows more various: flips, quarter turns, and other light."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from geotune.data.raster import Image

COUNT = 8
Value = TypeVar("Value", bound=np.generic)


def turn(pixels: NDArray[Value], which: int) -> NDArray[Value]:
    """One of the eight ways `(0 to 7)` to lay `(..., H, W)`; 0 leaves it as it is.

    `which % 4` quarter turns against the clock, after a left-right flip from 4 on.
    """
    flipped = np.flip(pixels, -1) if which >= 4 else pixels
    return np.rot90(flipped, which % 4, (-2, -1))


def relight(
    image: Image, rng: np.random.Generator, amount: float, spread: Sequence[float]
) -> Image:
    """An image `(C, H, W)` under other light: `gain x + offset`, the same for all its pixels.

    The gain is log-normal around 1 and the offset normal around 0 in units of each band's
    `spread`, both with standard deviation `amount`. Scenes differ so in season, haze and stretch.
    """
    gain = np.float32(np.exp(amount * rng.standard_normal()))
    offset = np.float32(amount * rng.standard_normal())
    return gain * image + offset * np.asarray(spread, image.dtype)[:, None, None]
