"""Augmentation of pixel values: brightness jitter and band dropout."""

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
    """Compute `gain * image + offset` with one random gain and offset for all pixels.

    The gain is log-normal around 1, and the offset is normal around 0 in units of `band_std`; both
    have the standard deviation `strength`. This imitates season, haze and contrast stretch;
    `by_band` draws them for each band, which imitates sensor and atmosphere.

    Args:
        image: `(C, ..., H, W)`.
        rng: random generator.
        strength: 0 returns the same values.
        band_std: standard deviation of each band.
        by_band: draw a gain and an offset for each band.
    """
    draws = len(image) if by_band else 1
    gain = np.exp(strength * rng.standard_normal(draws)).astype(np.float32)
    offset = (strength * rng.standard_normal(draws)).astype(np.float32)
    shape = (-1,) + (1,) * (image.ndim - 1)
    scale = np.asarray(band_std, image.dtype).reshape(shape)
    return gain.reshape(shape) * image + offset.reshape(shape) * scale


def drop_bands(image: Image, rng: np.random.Generator, probability: float) -> Image:
    """Set each band of `(C, ..., H, W)` to NaN with `probability`, except one at random."""
    dropped = rng.random(len(image)) < probability
    dropped[rng.integers(len(image))] = False
    image = image.copy()
    image[dropped] = np.nan
    return image
