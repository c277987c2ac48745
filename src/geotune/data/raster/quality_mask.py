"""Quality masks: rasters whose values or bits flag clouds, shadows and other unusable pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geotune.data.raster.io import Grid, open_dataset, open_warped_nearest, raster_errors
from geotune.data.raster.windows import Window


@dataclass(frozen=True)
class QARule:
    """Which values of a quality mask flag a pixel.

    Attributes:
        values: such as 3, 8, 9 and 10 of Sentinel-2's scene classification.
        bits: counted from 0, such as 3 (cloud) and 4 (shadow) of Landsat's QA_PIXEL.
        band: 1-based band of the mask's file.
        mask_image: set flagged pixels of the image to NaN; otherwise only their labels are ignored.
    """

    values: tuple[int, ...] = ()
    bits: tuple[int, ...] = ()
    band: int = 1
    mask_image: bool = False

    def flags(self, raw: NDArray[Any]) -> NDArray[np.bool_]:
        """Which of the integers `raw` flag their pixel."""
        flagged: NDArray[np.bool_] = np.isin(raw, self.values)
        if self.bits:
            flagged |= (raw.astype(np.int64) & sum(1 << bit for bit in self.bits)) != 0
        return flagged


@dataclass(frozen=True)
class QualityMask:
    """The quality mask of one image.

    Attributes:
        path: the file.
        rule: which of its values flag a pixel.
        shape: (H, W) of the image's grid.
        grid: the image's grid if the file has another one and is resampled; else None.
    """

    path: Path
    rule: QARule
    shape: tuple[int, int]
    grid: Grid | None

    def masked(self, window: Window) -> NDArray[np.bool_]:
        """Read the flagged pixels `(h, w)`; none outside the image or the mask."""
        masked = np.zeros((window.height, window.width), dtype=np.bool_)
        inner = window.clip(self.shape)
        if inner is None:
            return masked
        with raster_errors(self.path):
            handle = (
                open_dataset(self.path)
                if self.grid is None
                else open_warped_nearest(self.path, self.grid, self._unflagged)
            )
            raw = handle.read(
                self.rule.band,
                window=RasterioWindow(inner.col, inner.row, inner.width, inner.height),
            )
        masked[inner.slices_in(window)] = self.rule.flags(raw)
        return masked

    @property
    def _unflagged(self) -> int:
        """A value that flags nothing, to fill pixels outside the mask."""
        values = np.arange(128, dtype=np.uint8)
        return int(values[~self.rule.flags(values)][0])
