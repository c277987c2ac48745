"""What makes training windows more various: how they lie, what they cover, and other light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from geotune.data.raster.source import Image


@dataclass(frozen=True)
class Augment:
    """How training windows vary; by default they are flipped and turned by quarters.

    Attributes:
        flips: each window lies one of the eight ways.
        rotate: the most degrees by which a window is turned, either way.
        scale: the least and the greatest factor by which things in it appear larger.
        band_dropout: the probability that a band is left out; one always stays.
        band_brightness: as `data.brightness`, but drawn for each band by itself.
    """

    flips: bool = True
    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    band_dropout: float = 0.0
    band_brightness: float = 0.0

    @property
    def resamples(self) -> bool:
        """Whether windows are turned by any angle or scaled, so that pixels are computed anew."""
        return self.rotate > 0 or self.scale != (1.0, 1.0)

    @property
    def infinite(self) -> bool:
        """Whether a window may come in more than the eight ways to lay it."""
        return self.resamples or self.band_dropout > 0 or self.band_brightness > 0


def jitter_brightness(
    image: Image,
    rng: np.random.Generator,
    strength: float,
    band_std: Sequence[float],
    *,
    by_band: bool = False,
) -> Image:
    """An image `(C, ..., H, W)` under other light: `gain x + offset`, the same for all its pixels.

    The gain is log-normal around 1 and the offset normal around 0 in units of each band's
    `spread`, both with standard deviation `amount`. Scenes differ so in season, haze and stretch;
    `by_band`, where each band has its own, in sensor and atmosphere.
    """
    draws = len(image) if by_band else 1
    gain = np.exp(strength * rng.standard_normal(draws)).astype(np.float32)
    offset = (strength * rng.standard_normal(draws)).astype(np.float32)
    bands = (-1,) + (1,) * (image.ndim - 1)
    scale = np.asarray(band_std, image.dtype).reshape(bands)
    return gain.reshape(bands) * image + offset.reshape(bands) * scale


def drop_bands(image: Image, rng: np.random.Generator, probability: float) -> Image:
    """An image `(C, ..., H, W)` of which each band is NaN with probability `share`, but for one."""
    lost = rng.random(len(image)) < probability
    lost[rng.integers(len(image))] = False
    kept = image.copy()
    kept[lost] = np.nan
    return kept
