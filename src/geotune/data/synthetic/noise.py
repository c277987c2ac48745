"""Random fields that synthetic scenes are drawn with; numpy only, all periodic at their edges."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.float32]


def noise(rng: np.random.Generator, side: int, scale: float, roughness: float = 2.0) -> Field:
    """A Gaussian random field `(side, side)` of mean 0 and standard deviation 1.

    `scale` is the size in pixels of its largest features; its amplitude falls with the frequency
    to the power `roughness` below that: 1.5 is ragged, 3 smooth.
    """
    rows = np.fft.fftfreq(side)[:, None]
    columns = np.fft.rfftfreq(side)[None, :]
    amplitude = (rows**2 + columns**2 + scale**-2.0) ** (-roughness / 2)
    amplitude[0, 0] = 0
    white = np.fft.rfft2(rng.standard_normal((side, side), dtype=np.float32))
    field = np.fft.irfft2(white * amplitude.astype(np.float32), s=(side, side))
    return np.asarray(field / field.std(), dtype=np.float32)


def curve(rng: np.random.Generator, side: int, scale: float) -> Field:
    """A smooth periodic random line `(side,)` of mean 0 and standard deviation 1."""
    frequency = np.fft.rfftfreq(side)
    amplitude = (frequency**2 + scale**-2.0) ** -1.9
    amplitude[0] = 0
    line = np.fft.irfft(np.fft.rfft(rng.standard_normal(side)) * amplitude, n=side)
    return np.asarray(line / line.std(), dtype=np.float32)


def scatter(salt: int, *keys: NDArray[Any]) -> Field:
    """A number in [0, 1) for each combination of integer `keys`: the same keys, the same number."""
    mixed = np.full(np.broadcast_shapes(*(k.shape for k in keys)), salt, np.uint64)
    for key in keys:  # the finaliser of splitmix64
        mixed = mixed + key.astype(np.int64).astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


def blur(field: Field, sigma: float) -> Field:
    """`field` `(..., H, W)` convolved with a Gaussian of `sigma` pixels."""
    reach = int(np.ceil(3 * sigma))
    offsets = range(-reach, reach + 1)
    weights = np.exp([-0.5 * (offset / sigma) ** 2 for offset in offsets])
    weights = (weights / weights.sum()).astype(np.float32)
    for axis in (-2, -1):
        sharp, field = field, np.zeros_like(field)
        for offset, weight in zip(offsets, weights, strict=True):
            field += np.roll(sharp, offset, axis) * weight
    return field


def ramp(field: Field, low: float, high: float) -> Field:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((field - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)
