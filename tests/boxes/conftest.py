"""Random boxes."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from geotune.boxes.oriented import canonical

Boxes = NDArray[np.float64]


@pytest.fixture(scope="session")
def random_boxes() -> Callable[..., Boxes]:
    """Canonical boxes `(n, 5)` with sides 1 to 60 and centres in a square."""

    def make(n: int, seed: int = 0, extent: float = 60) -> Boxes:
        rng = np.random.default_rng(seed)
        positions, sides = rng.uniform(0, extent, (n, 2)), rng.uniform(1, 60, (n, 2))
        return canonical(np.hstack([positions, sides, rng.uniform(-math.pi, math.pi, (n, 1))]))

    return make
