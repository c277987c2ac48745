"""Which pixels of a file have no data: by nodata value, mask or transparency."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

FLOAT_EPSILON = np.float32(np.finfo(np.float32).eps)


class FileMask(NamedTuple):
    """Where a file marks pixels without data, beside nodata values.

    Attributes:
        alpha: 1-based index of a band of transparency, 0 where there is no data; None for the
            file's mask.
    """

    alpha: int | None = None

    def missing(
        self, handle: DatasetReader, window: RasterioWindow, shape: tuple[int, int]
    ) -> NDArray[np.bool_]:
        """Read the pixels `(h, w)`, `shape`, without data."""
        if self.alpha is None:
            mask = handle.dataset_mask(window=window, out_shape=shape)
        else:
            mask = handle.read(self.alpha, window=window, out_shape=shape)
        return np.asarray(mask == 0)


def can_hold(dtype: np.dtype[Any], nodata: float) -> bool:
    """Whether a pixel of `dtype` can have the nodata value."""
    if dtype.kind == "f":
        return True
    info = np.iinfo(dtype)
    return info.min <= nodata <= info.max and float(nodata).is_integer()


def is_nodata(
    values: NDArray[Any], nodata: float | None, dtype: np.dtype[Any]
) -> NDArray[np.bool_] | None:
    """Where values are nodata; None if nodata is not set, or the file's `dtype` cannot hold it.

    Floats are compared with GDAL's tolerance, as files state nodata with few digits (ARE_REAL_EQUAL
    in gdal_priv_templates.hpp: two units of float32 in the last place, also for float64).
    """
    if nodata is None or not can_hold(dtype, nodata):
        return None
    if math.isnan(nodata):
        return np.asarray(np.isnan(values))
    equal: NDArray[np.bool_] = values == dtype.type(nodata)
    if dtype.kind == "f":
        with np.errstate(over="ignore", invalid="ignore"):
            value = dtype.type(nodata)
            # near the largest number the sum is infinite, so that everything near it is equal
            equal |= np.abs(values - value) < 2 * FLOAT_EPSILON * np.abs(values + value)
    return equal
