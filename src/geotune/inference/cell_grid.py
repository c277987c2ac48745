"""The grid of feature cells on a scene: windows start where cells of all windows coincide.

pixels  |----|----|----|----|----|----|      stride 3.5: unit 7 pixels, 2 cells
cells   |------|------|------|------|--
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import NDArray

MAX_DENOMINATOR = 64
"""Of strides, which are quotients of small integers."""


@dataclass(frozen=True)
class CellGrid:
    """How output cells lie on the pixels of a scene.

    Attributes:
        unit: step of the windows' positions in pixels.
        cells: output cells of a unit.
    """

    unit: int = 1
    cells: int = 1

    @classmethod
    def of_stride(cls, stride: float, patch: float = 1.0) -> Self:
        """The grid of cells of `stride` pixels.

        Windows start at multiples of `patch` pixels too, so that patches of neighbours coincide.
        """
        side = Fraction(stride).limit_denominator(MAX_DENOMINATOR)
        step = Fraction(patch).limit_denominator(MAX_DENOMINATOR).numerator
        unit = math.lcm(side.numerator, step)
        return cls(unit, int(unit / side))

    @property
    def stride(self) -> float:
        """Side of a cell in pixels."""
        return self.unit / self.cells

    def shape(self, pixels: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of cells on an image of (H, W) pixels, cut cells included."""
        height, width = (-(-side * self.cells // self.unit) for side in pixels)
        return height, width

    def window(self, pixels: int, multiple: int = 1) -> int:
        """The smallest side of a window, at least `pixels`, of whole units and multiples."""
        step = math.lcm(self.unit, multiple)
        return -(-pixels // step) * step

    def any_pixel(self, valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which cells have a valid pixel; `(H, W)` of pixels to `(h, w)` of cells."""
        if self.unit == self.cells:
            return valid
        rows, columns = (
            np.arange(-(-side * self.cells // self.unit)) * self.unit // self.cells
            for side in valid.shape
        )
        of_rows = np.logical_or.reduceat(valid, rows, axis=0)
        cells: NDArray[np.bool_] = np.logical_or.reduceat(of_rows, columns, axis=1)
        return cells


PIXELS = CellGrid()
"""One output cell for each pixel."""
