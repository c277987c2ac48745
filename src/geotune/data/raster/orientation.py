"""The eight orientations of a window: quarter turns, with and without a left-right flip."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

NUM_ORIENTATIONS = 8
Value = TypeVar("Value", bound=np.generic)


def orient(pixels: NDArray[Value], orientation: int) -> NDArray[Value]:
    """Bring `(..., H, W)` into one of the eight orientations (0 to 7); 0 is the identity.

    From 4 on, a left-right flip comes first; `orientation % 4` counter-clockwise quarter turns
    follow. The result is a view.
    """
    flipped = np.flip(pixels, -1) if orientation >= 4 else pixels
    return np.rot90(flipped, orientation % 4, (-2, -1))
