"""Quality masks: rasters whose values or bits flag clouds, shadows and other unusable pixels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geotune.config.data_options import QualityOptions
from geotune.data.raster.io import Grid, open_dataset, open_warped_nearest, raster_errors
from geotune.data.raster.windows import Window


@dataclass(frozen=True)
class QualityMask:
    """The quality mask of one image.

    Attributes:
        path: the file.
        options: which of its values flag a pixel.
        shape: (H, W) of the image's grid.
        grid: the image's grid if the file has another one and is resampled; else None.
    """

    path: Path
    options: QualityOptions
    shape: tuple[int, int]
    grid: Grid | None

    def masked(self, window: Window) -> NDArray[np.bool_]:
        """Read the flagged pixels `(h, w)`; none outside the image or the mask."""
        masked = np.zeros((window.height, window.width), dtype=np.bool_)
        inner = window.clip(self.shape)
        if inner is None:
            return masked
        with raster_errors(self.path):
            band = self.options.band
            file_window = RasterioWindow(inner.col, inner.row, inner.width, inner.height)
            if self.grid is None:
                raw = open_dataset(self.path).read(band, window=file_window)
            else:
                warped = open_warped_nearest(self.path, self.grid, self._unflagged, band=band)
                raw = warped.read(1, window=file_window)
        masked[inner.slices_in(window)] = _flags(raw, self.options)
        return masked

    @property
    def _unflagged(self) -> int:
        """A value that flags nothing, to fill pixels outside the mask."""
        values = np.arange(128, dtype=np.uint8)
        return int(values[~_flags(values, self.options)][0])


def _flags(raw: NDArray[Any], options: QualityOptions) -> NDArray[np.bool_]:
    """Which of the integers `raw` flag their pixel."""
    flagged: NDArray[np.bool_] = np.isin(raw, options.values)
    if options.bits:
        flagged |= (raw.astype(np.int64) & sum(1 << bit for bit in options.bits)) != 0
    return flagged
