"""What makes training windows more various: how they lie, what they cover, and other light."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geotune.data.raster.source import Image


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
