"""Labels in a raster: a class value, or the colour of a class, per pixel."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from geotune.data.labels.class_mapping import UNKNOWN, ClassMapping, IndexMap
from geotune.data.labels.targets import PixelClasses
from geotune.data.raster.align import align_to_grid
from geotune.data.raster.io import Grid, open_dataset, open_warped_nearest, raster_errors
from geotune.data.raster.nodata import FileMask, file_mask, is_nodata
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError
from geotune.types import IGNORE


@dataclass(frozen=True)
class RasterLabels:
    """A raster of class values, on the scene's grid or resampled to it by nearest neighbour.

    Attributes:
        path: the file.
        mapping: which value maps to which class.
        shape: (H, W) of the scene.
        grid: the scene's grid if the file has another one; else None.
        nodata: the file's value without a label; None without any, or if it is a class's value.
        mask: where the file marks pixels without a label; None if it does not.
        fill: a value that no class has, for pixels outside the file when it is resampled.
        overlaps: whether the file covers any of the scene.
        notes: how the file was interpreted.
        colors: whether values are colours, 0xRRGGBB.
    """

    path: Path
    mapping: ClassMapping
    shape: tuple[int, int]
    grid: Grid | None
    nodata: float | None
    mask: FileMask | None
    fill: float
    overlaps: bool
    notes: tuple[str, ...]
    colors: bool = False

    label_unit: ClassVar[str] = "pixel"
    image_level: ClassVar[bool] = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the indices."""
        return self.mapping.classes

    def read(self, window: Window) -> PixelClasses:
        """Read the classes. Raises `GeotuneError` for a value that maps to no class."""
        mask = np.full((window.height, window.width), IGNORE, dtype=np.uint8)
        inner = window.clip(self.shape)
        if inner is None:
            return PixelClasses(mask)
        raw, indices = self._read_indices(inner)
        if (indices == UNKNOWN).any():
            raise self._unknown_values(raw[indices == UNKNOWN])
        mask[inner.slices_in(window)] = indices
        return PixelClasses(mask)

    def check(self, windows: Iterable[Window]) -> None:
        """Raise `GeotuneError` with every value in `windows` that maps to no class."""
        unknown: list[NDArray[Any]] = []
        for window in windows:
            inner = window.clip(self.shape)
            if inner is not None:
                raw, indices = self._read_indices(inner)
                unknown.append(raw[indices == UNKNOWN])
        if any(values.size for values in unknown):
            raise self._unknown_values(np.concatenate(unknown))

    def _read_indices(self, window: Window) -> tuple[NDArray[Any], IndexMap]:
        """Read the file's values `(h, w)`, colours as 0xRRGGBB, and their class indices."""
        file_window = RasterioWindow(window.col, window.row, window.width, window.height)
        with raster_errors(self.path):
            handle = (
                open_dataset(self.path)
                if self.grid is None
                else open_warped_nearest(self.path, self.grid, self.fill, mask=self.mask)
            )
            if self.colors:
                red, green, blue = handle.read((1, 2, 3), window=file_window).astype(np.int32)
                raw: NDArray[Any] = red << 16 | green << 8 | blue
            else:
                raw = handle.read(1, window=file_window)
            indices = self.mapping.indices(raw, self.nodata)
            if self.grid is not None:
                indices[raw == self.fill] = IGNORE
            elif self.mask is not None:
                indices[self.mask.missing(handle, file_window, raw.shape)] = IGNORE
        nodata_pixels = is_nodata(raw, self.nodata, raw.dtype)
        if nodata_pixels is not None:
            indices[nodata_pixels] = IGNORE
        return raw, indices

    def _unknown_values(self, unknown: NDArray[Any]) -> GeotuneError:
        values, counts = np.unique(unknown, return_counts=True)
        listed = ", ".join(
            f"{_hex_color(value) if self.colors else f'{value:g}'} ({count} pixels)"
            for value, count in zip(values[:5], counts[:5], strict=True)
        )
        more = f" and {len(values) - 5} more values" if len(values) > 5 else ""
        return GeotuneError(
            f"{self.path}: has the class values {listed}{more}; expected {self._expected()}; "
            "map the values to classes with data.class_values, or ignore them with "
            "data.ignore_values",
            code="class-unknown",
            key="data.class_values",
            file=self.path,
        )

    def _expected(self) -> str:
        """The classes with their values or colours."""
        if not self.colors:
            return self.mapping.describe()
        items = self.mapping.index_by_number.items()
        return ", ".join(
            f"{name} ({' or '.join(_hex_color(value) for value, index in items if index == i)})"
            for i, name in enumerate(self.classes)
        )


def open_raster_labels(
    path: Path, raster: RasterSource, mapping: ClassMapping, *, by_pixel: bool = False
) -> RasterLabels:
    """Open raster labels of the scene `raster`.

    A file on the scene's grid, or without georeference, is read pixel by pixel and must have the
    scene's size; one on another grid is resampled. Raises `GeotuneError` otherwise.
    """
    handle = open_dataset(path, reopen=True)
    colors = _has_colors(path, raster, mapping, handle)
    grid, overlaps, notes = align_to_grid(path, raster, handle, by_pixel=by_pixel)
    if grid is not None and colors:
        raise GeotuneError(
            f"{path}: is a colour mask on another grid than {raster.path}; resample it to that "
            "grid (gdalwarp -r near)",
            code="grid-mismatch",
            file=path,
        )
    nodata = None if colors else handle.nodata
    if nodata is not None and nodata in mapping.index_by_number:
        name = mapping.classes[mapping.index_by_number[int(nodata)]]
        notes.append(f"{path}: its nodata value {nodata:g} maps to {name} and counts as {name}")
        nodata = None
    return RasterLabels(
        path=path,
        mapping=mapping,
        shape=raster.shape,
        grid=grid,
        nodata=nodata,
        mask=file_mask(handle, 1),
        fill=_unused_value(handle.dtypes[0], mapping),
        overlaps=overlaps,
        notes=tuple(notes),
        colors=colors,
    )


def _has_colors(
    path: Path, raster: RasterSource, mapping: ClassMapping, handle: DatasetReader
) -> bool:
    """Whether a mask has colours. Raises `GeotuneError` unless it has one band or three colours."""
    if handle.count == 1:
        return False
    highest = max(mapping.index_by_number, default=0)
    if handle.dtypes == ("uint8",) * 3 and highest > np.iinfo(np.uint8).max:
        return True
    raise GeotuneError(
        f"{path}: has {handle.count} bands; expected one band of class values for {raster.path}; "
        "for a colour mask (red, green, blue of uint8) map colours to classes with "
        "data.class_values, as in water: 0x0000FF",
        code="class-values",
        key="data.class_values",
        file=path,
    )


def _unused_value(dtype: str, mapping: ClassMapping) -> float:
    """A value of `dtype` that no class has."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return float(np.finfo(kind).min)
    info = np.iinfo(kind)
    used = mapping.index_by_number
    return float(next(v for v in range(int(info.max), int(info.min), -1) if v not in used))


def _hex_color(value: float) -> str:
    return f"0x{int(value):06X}"
