"""Labels in a raster: a class value for each pixel, or its colour."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from rasterio.io import DatasetReader
from rasterio.windows import Window as RasterioWindow

from geotune.data.labels.class_mapping import UNKNOWN, ClassMapping, Mask
from geotune.data.labels.targets import PixelClasses
from geotune.data.raster.align import align_to_grid
from geotune.data.raster.io import Grid, open_dataset, open_warped_nearest, raster_errors
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError
from geotune.types import IGNORE


@dataclass(frozen=True)
class RasterLabels:
    """A raster of class values, on the scene's grid or brought to it by nearest pixel.

    Attributes:
        path: the file.
        values: which value is which class.
        shape: the scene's (H, W).
        grid: the scene's grid where the file has another, else None.
        nodata: the file's value without label, None where it has none or it is a class's.
        outside: stands for "no label here" when the file is brought to the scene's grid.
        overlaps: whether the file covers any of the scene.
        notes: how the file was understood.
        colours: whether values are colours, 0xRRGGBB.
    """

    path: Path
    values: ClassMapping
    shape: tuple[int, int]
    grid: Grid | None
    nodata: float | None
    outside: float
    overlaps: bool
    notes: tuple[str, ...]
    colours: bool = False

    label_unit: ClassVar[str] = "pixel"
    image_level: ClassVar[bool] = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, in the order of the indices."""
        return self.values.classes

    def read(self, window: Window) -> PixelClasses:
        """The pixels' classes. Raises `GeotuneError` for a value that is no class."""
        mask = np.full((window.height, window.width), IGNORE, dtype=np.uint8)
        inner = window.clip(self.shape)
        if inner is None:
            return PixelClasses(mask)
        raw = self._raw(inner)
        indices = self._indices(raw)
        if (indices == UNKNOWN).any():
            self._refuse(raw[indices == UNKNOWN])
        mask[inner.slices_in(window)] = indices
        return PixelClasses(mask)

    def check(self, windows: Iterable[Window]) -> None:
        """Read `windows` and raise `GeotuneError` with every value that is no class."""
        found: list[NDArray[Any]] = []
        for window in windows:
            inner = window.clip(self.shape)
            if inner is not None:
                raw = self._raw(inner)
                found.append(raw[self._indices(raw) == UNKNOWN])
        if any(part.size for part in found):
            self._refuse(np.concatenate(found))

    def _indices(self, raw: NDArray[Any]) -> Mask:
        indices = self.values.indices(raw, self.nodata)
        if self.grid is not None:
            indices[raw == self.outside] = IGNORE
        return indices

    def _raw(self, window: Window) -> NDArray[Any]:
        where = RasterioWindow(window.col, window.row, window.width, window.height)
        with raster_errors(self.path):
            if self.colours:
                red, green, blue = open_dataset(self.path).read(window=where).astype(np.int32)
                colour: NDArray[Any] = red << 16 | green << 8 | blue
                return colour
            source = (
                open_dataset(self.path)
                if self.grid is None
                else open_warped_nearest(self.path, self.grid, self.outside)
            )
            raw: NDArray[Any] = source.read(1, window=where)
        return raw

    def _refuse(self, unknown: NDArray[Any]) -> None:
        values, counts = np.unique(unknown, return_counts=True)
        listed = ", ".join(
            f"{_colour(value) if self.colours else f'{value:g}'} ({count} pixels)"
            for value, count in zip(values[:5], counts[:5], strict=True)
        )
        more = f" and {len(values) - 5} more values" if len(values) > 5 else ""
        raise GeotuneError(
            f"{self.path}: holds class value {listed}{more}; expected {self._expected()}; "
            "say what the values mean with data.class_values, or leave them out with "
            "data.ignore_values"
        )

    def _expected(self) -> str:
        """The classes with their values or colours."""
        if not self.colours:
            return self.values.describe()
        numbers = self.values.numbers.items()
        return ", ".join(
            f"{name} ({' or '.join(_colour(value) for value, of in numbers if of == i)})"
            for i, name in enumerate(self.classes)
        )


def open_raster_labels(
    path: Path, raster: RasterSource, values: ClassMapping, *, by_pixel: bool = False
) -> RasterLabels:
    """Raster labels of the scene `raster`.

    A file with the scene's grid, or without georeference, is taken pixel by pixel and must have
    the scene's size; one on another grid is reprojected. Raises `GeotuneError` otherwise.
    """
    handle = open_dataset(path, reopen=True)
    colours = _in_colours(path, raster, values, handle)
    grid, overlaps, notes = align_to_grid(path, raster, handle, by_pixel=by_pixel)
    if grid is not None and colours:
        raise GeotuneError(
            f"{path}: is a mask in colours on another grid than {raster.path}; bring it to that "
            "grid (gdalwarp -r near)"
        )
    nodata = None if colours else handle.nodata
    if nodata is not None and nodata in values.numbers:
        name = values.classes[values.numbers[int(nodata)]]
        notes.append(f"{path}: its nodata {nodata:g} is the value of {name} and counts as {name}")
        nodata = None
    return RasterLabels(
        path=path,
        values=values,
        shape=raster.shape,
        grid=grid,
        nodata=nodata,
        outside=_unused(handle.dtypes[0], values),
        overlaps=overlaps,
        notes=tuple(notes),
        colours=colours,
    )


def _in_colours(
    path: Path, raster: RasterSource, values: ClassMapping, handle: DatasetReader
) -> bool:
    """Whether a mask has colours. Raises `GeotuneError` for other bands than one, or than those."""
    if handle.count == 1:
        return False
    if handle.dtypes == ("uint8",) * 3 and max(values.numbers, default=0) > np.iinfo(np.uint8).max:
        return True
    raise GeotuneError(
        f"{path}: has {handle.count} bands; expected one band of class values for {raster.path}; "
        "of a mask in colours (red, green, blue of uint8) say which colour is which class with "
        "data.class_values, as in water: 0x0000FF"
    )


def _unused(dtype: str, values: ClassMapping) -> float:
    """A value of `dtype` that no class has."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return float(np.finfo(kind).min)
    info = np.iinfo(kind)
    return float(
        next(v for v in range(int(info.max), int(info.min), -1) if v not in values.numbers)
    )


def _colour(value: float) -> str:
    return f"0x{int(value):06X}"
