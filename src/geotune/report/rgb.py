"""Convert multi-band images to RGB for display."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from geotune.utils.rgb_bands import NATURAL, shown_bands

_GAMMA = 0.7
_CHECKER_PIXELS = 8
_CHECKER_GREYS = (150, 185)


def to_rgb(image: NDArray[np.floating], bands: Sequence[str]) -> NDArray[np.uint8]:
    """Stretch an image from its 2nd to its 98th percentile, with a gamma that lifts dark values.

    Natural colours share one stretch, to keep their hues; other bands get one each.

    Args:
        image: `(C, H, W)` in any units, NaN for no data.
        bands: the names of the C bands.

    Returns:
        `(H, W, 3)` uint8; pixels without data show a grey checkerboard.

    Raises:
        ValueError: if `bands` does not name every band of `image`.
    """
    if image.ndim != 3 or len(bands) != image.shape[0] or not len(bands):
        raise ValueError(f"an image of shape {image.shape} does not have the bands {list(bands)}")
    picked = np.asarray(image, dtype=np.float64)[list(shown_bands(bands))]
    valid = np.isfinite(picked).all(axis=0)
    rgb = _checker(*picked.shape[1:])
    if valid.any():
        rgb[valid] = Stretch.of(picked, bands).apply(picked[:, valid]).T
    return rgb


class Stretch(NamedTuple):
    """The values of red, green and blue that become 0 and 255.

    Attributes:
        low: of each colour, `(3,)`.
        high: of each colour, `(3,)`.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def of(cls, picked: NDArray[np.floating], bands: Sequence[str]) -> Stretch:
        """The stretch of the shown bands `(3, H, W)` of an image with all `bands`; see `to_rgb`."""
        values = picked[:, np.isfinite(picked).all(axis=0)]
        if not values.size:
            return cls(np.zeros(3), np.ones(3))
        natural = tuple(bands[i].lower() for i in shown_bands(bands)) in NATURAL
        low, high = np.percentile(values, (2, 98), axis=None if natural else 1)
        return cls(np.broadcast_to(low, 3), np.broadcast_to(high, 3))

    def apply(self, picked: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Finite values `(3, ...)` as colours from 0 to 255."""
        shape = (3,) + (1,) * (picked.ndim - 1)
        low, high = self.low.reshape(shape), self.high.reshape(shape)
        span = np.where(high > low, high - low, 1.0)
        scaled = np.where(high > low, (picked - low) / span, 0.5)
        colors: NDArray[np.uint8] = np.round(255 * scaled.clip(0, 1) ** _GAMMA).astype(np.uint8)
        return colors


def _checker(height: int, width: int) -> NDArray[np.uint8]:
    """A grey checkerboard `(H, W, 3)`."""
    squares = np.add.outer(
        np.arange(height) // _CHECKER_PIXELS, np.arange(width) // _CHECKER_PIXELS
    )
    greys = np.array(_CHECKER_GREYS, dtype=np.uint8)[squares % 2]
    return np.repeat(greys[:, :, None], 3, axis=2)
