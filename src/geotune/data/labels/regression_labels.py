"""Labels in a raster: a number for each pixel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geotune.data.labels.targets import PixelValues
from geotune.data.labels.vector_io import is_vector
from geotune.data.raster.align import align_to_grid
from geotune.data.raster.io import Grid, open_dataset, open_warped, raster_errors
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError


@dataclass(frozen=True)
class ValueLabels:
    """A raster of numbers, on the scene's grid or brought to it bilinearly.

    Nodata and NaN are no label. Numbers are taken as they stand in the file.

    Attributes:
        path: the file.
        classes: what the numbers are.
        band: which of the file's bands holds them, from 1.
        shape: the scene's (H, W).
        grid: the scene's grid where the file has another, else None.
        nodata: the file's value without label.
        overlaps: whether the file covers any of the scene.
        notes: how the file was understood.
    """

    path: Path
    classes: tuple[str, ...]
    band: int
    shape: tuple[int, int]
    grid: Grid | None
    nodata: float | None
    overlaps: bool
    notes: tuple[str, ...]

    label_unit: ClassVar[str] = "pixel"
    image_level: ClassVar[bool] = False

    def read(self, window: Window) -> PixelValues:
        """The pixels' numbers. Raises `GeotuneError` for one that is infinite."""
        values = np.full((window.height, window.width), np.nan, dtype=np.float32)
        inner = window.clip(self.shape)
        if inner is not None:
            found = self._numbers(inner)
            if np.isinf(found).any():
                row, col = np.argwhere(np.isinf(found))[0]
                raise GeotuneError(
                    f"{self.path}: holds an infinite value at row {row + inner.row}, column "
                    f"{col + inner.col} of the scene; where it means no label make it the nodata "
                    "value or NaN"
                )
            values[inner.slices_in(window)] = found
        return PixelValues(values)

    def check(self, windows: Iterable[Window]) -> None:
        """Read `windows`; raises `GeotuneError` as `read` does."""
        for window in windows:
            self.read(window)

    def _numbers(self, window: Window) -> NDArray[np.float32]:
        where = RasterioWindow(window.col, window.row, window.width, window.height)
        with raster_errors(self.path):
            if self.grid is not None:
                warped = open_warped(self.path, self.grid, self.nodata)
                brought: NDArray[np.float32] = warped.read(self.band, window=where)
                return brought
            raw = open_dataset(self.path).read(self.band, window=where)
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused as infinite
            found: NDArray[np.float32] = raw.astype(np.float32)
        if self.nodata is not None:
            found[raw == self.nodata] = np.nan
        return found


def open_value_labels(
    path: Path, raster: RasterSource, *, quantity: str, band: int = 1, by_pixel: bool = False
) -> ValueLabels:
    """Numbers of the scene `raster`, called `quantity`, in one band of a raster.

    A file with the scene's grid, or without georeference, is taken pixel by pixel and must have
    the scene's size; one on another grid is brought to it bilinearly. Raises `GeotuneError`
    otherwise.
    """
    if is_vector(path):
        raise GeotuneError(f"{path}: is a vector file; a number for each pixel comes from a raster")
    handle = open_dataset(path, reopen=True)
    if band > handle.count:
        raise GeotuneError(f"{path}: has {handle.count} bands, but data.label_band is {band}")
    if handle.dtypes[band - 1].startswith("complex"):
        raise GeotuneError(f"{path}: has complex values; expected integers or floats")
    grid, overlaps, notes = align_to_grid(path, raster, handle, by_pixel=by_pixel)
    return ValueLabels(
        path=path,
        classes=(quantity,),
        band=band,
        shape=raster.shape,
        grid=grid,
        nodata=handle.nodatavals[band - 1],
        overlaps=overlaps,
        notes=tuple(notes),
    )
