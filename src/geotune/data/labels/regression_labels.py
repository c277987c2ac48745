"""Labels in a raster: a number per pixel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geotune.config.data_options import LabelledDataOptions
from geotune.config.task_options import RegressOptions
from geotune.data.labels.base import LabelReader
from geotune.data.labels.targets import PixelValues
from geotune.data.labels.vector_io import is_vector
from geotune.data.raster.align import align_to_grid
from geotune.data.raster.header import read_header
from geotune.data.raster.io import Grid, open_dataset, open_warped, raster_errors
from geotune.data.raster.nodata import FileMask, is_nodata
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError


@dataclass(frozen=True)
class RegressionLabels:
    """A raster of numbers, on the scene's grid or resampled to it bilinearly.

    Nodata, NaN and pixels that the file's mask excludes mean no label. Scale and offset in the
    file's metadata are not applied.

    Attributes:
        path: the file.
        classes: the name of the quantity.
        band: 1-based band of the file.
        shape: (H, W) of the scene.
        grid: the scene's grid if the file has another one; else None.
        nodata: the band's value without a label.
        mask: where the file marks pixels without a label; None if it does not.
        overlaps: whether the file covers any of the scene.
        notes: how the file was interpreted.
        nearest: whether it is resampled by nearest neighbour instead, which mixes no numbers.
    """

    path: Path
    classes: tuple[str, ...]
    band: int
    shape: tuple[int, int]
    grid: Grid | None
    nodata: float | None
    mask: FileMask | None
    overlaps: bool
    notes: tuple[str, ...]
    nearest: bool = False

    label_unit: ClassVar[str] = "pixel"
    image_level: ClassVar[bool] = False

    def read(self, window: Window) -> PixelValues:
        """Read the values. Raises `GeotuneError` for an infinite one."""
        values = np.full((window.height, window.width), np.nan, dtype=np.float32)
        inner = window.clip(self.shape)
        if inner is not None:
            inside = self._read_values(inner)
            if np.isinf(inside).any():
                row, col = np.argwhere(np.isinf(inside))[0]
                raise GeotuneError(
                    f"{self.path}: has an infinite value at row {row + inner.row}, column "
                    f"{col + inner.col} of the scene; if it means no label, make it the nodata "
                    "value or NaN",
                    code="label-value",
                    file=self.path,
                )
            values[inner.slices_in(window)] = inside
        return PixelValues(values)

    def check(self, windows: Iterable[Window]) -> None:
        """Read `windows`; raises `GeotuneError` as `read` does."""
        for window in windows:
            self.read(window)

    def _read_values(self, window: Window) -> NDArray[np.float32]:
        file_window = RasterioWindow(window.col, window.row, window.width, window.height)
        with raster_errors(self.path):
            if self.grid is not None:
                warped = open_warped(
                    self.path,
                    self.grid,
                    self.nodata,
                    band=self.band,
                    mask=self.mask,
                    nearest=self.nearest,
                )
                resampled: NDArray[np.float32] = warped.read(1, window=file_window)
                return resampled
            handle = open_dataset(self.path)
            raw = handle.read(self.band, window=file_window)
            missing = is_nodata(raw, self.nodata, raw.dtype)
            if self.mask is not None:
                masked = self.mask.missing(handle, file_window, raw.shape)
                missing = masked if missing is None else missing | masked
        with np.errstate(over="ignore"):  # values out of float32's range are rejected as infinite
            values: NDArray[np.float32] = raw.astype(np.float32)
        if missing is not None:
            values[missing] = np.nan
        return values


def open_regression_labels(
    path: Path, raster: RasterSource, *, quantity: str, band: int = 1, by_pixel: bool = False
) -> RegressionLabels:
    """Open a raster of numbers, called `quantity`, of the scene `raster`.

    A file on the scene's grid, or without georeference, is read pixel by pixel and must have the
    scene's size; one on another grid is resampled bilinearly. Raises `GeotuneError` otherwise.
    """
    if is_vector(path):
        raise GeotuneError(
            f"{path}: is a vector file; expected a raster with a number per pixel",
            code="file-unreadable",
            key="data.labels",
            file=path,
        )
    header = read_header(path)
    if band > header.count:
        raise GeotuneError(
            f"{path}: has {header.count} bands, but data.label_band is {band}",
            code="band-missing",
            key="data.label_band",
            file=path,
        )
    if header.dtypes[band - 1].startswith("complex"):
        raise GeotuneError(
            f"{path}: has complex values; expected integers or floats",
            code="raster-dtype",
            file=path,
        )
    grid, overlaps, notes = align_to_grid(path, raster, header, by_pixel=by_pixel)
    scale, offset = header.scales[band - 1], header.offsets[band - 1]
    if (scale, offset) != (1, 0):
        notes.append(f"{path}: states scale {scale:g} and offset {offset:g}, which are not applied")
    return RegressionLabels(
        path=path,
        classes=(quantity,),
        band=band,
        shape=raster.shape,
        grid=grid,
        nodata=header.nodatavals[band - 1],
        mask=FileMask() if header.masked[band - 1] else None,
        overlaps=overlaps,
        notes=tuple(notes),
    )


def value_label_reader(data: LabelledDataOptions, task: RegressOptions) -> LabelReader:
    """The reader of labels for regression."""
    return partial(open_regression_labels, quantity=task.quantity, band=data.label_band)
