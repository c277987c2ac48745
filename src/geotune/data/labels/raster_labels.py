"""Labels in a raster: a class value, or the colour of a class, per pixel."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.windows import Window as RasterioWindow

from geotune.data.labels.class_mapping import UNKNOWN, ClassMapping, IndexMap
from geotune.data.labels.targets import PixelClasses
from geotune.data.raster.align import align_to_grid
from geotune.data.raster.header import RasterHeader, read_header
from geotune.data.raster.io import Grid, open_dataset, open_warped_nearest, raster_errors
from geotune.data.raster.nodata import FileMask, is_nodata
from geotune.data.raster.source import RasterSource
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError
from geotune.types import IGNORE

MAX_NUMBER = 0xFFFF
"""Greater values of classes are colours, not numbers, if a file has bytes."""

LOSSY = (".jpg", ".jpeg")

TRANSPARENT = -1
"""Stands in for a colour where a mask is transparent."""


@dataclass(frozen=True)
class RasterLabels:
    """A raster of class values, on the scene's grid or resampled to it by nearest neighbour.

    Attributes:
        path: the file.
        mapping: which value maps to which class.
        shape: (H, W) of the scene.
        grid: the scene's grid, to resample the file to; None if the file has the same grid.
        nodata: the file's value or colour without a label; None without any, or if it is a class's.
        mask: where the file marks pixels without a label; None if it does not.
        fill: a value that no pixel has, for those outside the file when it is resampled.
        overlaps: whether the file covers any of the scene.
        notes: how the file was interpreted.
        colors: whether values are colours, 0xRRGGBB.
        palette: colour by index of a file with a palette, `TRANSPARENT` for entries without one.
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
    palette: tuple[int, ...] = ()

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
            bands = self._read_bands(file_window)
            raw = self._as_colors(bands) if self.colors else bands[0]
            indices = self.mapping.indices(raw, self.nodata)
            if self.grid is not None:
                indices[bands[0] == self.fill] = IGNORE
            elif self.mask is not None:
                handle = open_dataset(self.path)
                indices[self.mask.missing(handle, file_window, raw.shape)] = IGNORE
        if self.colors:
            indices[raw == TRANSPARENT] = IGNORE
        nodata_pixels = is_nodata(raw, self.nodata, raw.dtype)
        if nodata_pixels is not None:
            indices[nodata_pixels] = IGNORE
        return raw, indices

    def _read_bands(self, window: RasterioWindow) -> NDArray[Any]:
        """The file's bands `(C, h, w)`, `fill` outside the file."""
        handle = open_dataset(self.path)
        if self.grid is None:
            native: NDArray[Any] = handle.read(window=window)
            return native
        return np.stack(
            [
                open_warped_nearest(
                    self.path, self.grid, self.fill, band=band, mask=self.mask
                ).read(1, window=window)
                for band in handle.indexes
            ]
        )

    def _as_colors(self, bands: NDArray[Any]) -> NDArray[Any]:
        """Colours `(h, w)` of indices of the palette, or of red, green, blue and perhaps alpha."""
        inside = bands[0] != self.fill
        if self.palette:
            colors: NDArray[Any] = np.array(self.palette).take(np.where(inside, bands[0], 0))
        else:
            red, green, blue, *alpha = bands.astype(np.int32)
            colors = red << 16 | green << 8 | blue
            if alpha:
                inside &= (alpha[0] > 0) | np.isin(colors, [*self.mapping.index_by_number])
        return np.where(inside, colors, TRANSPARENT)

    def _unknown_values(self, unknown: NDArray[Any]) -> GeotuneError:
        values, counts = np.unique(unknown, return_counts=True)
        listed = ", ".join(
            f"{self._describe(value)} ({count} pixels)"
            for value, count in zip(values[:5], counts[:5], strict=True)
        )
        more = f" and {len(values) - 5} more values" if len(values) > 5 else ""
        if self.path.suffix.lower() in LOSSY:
            more += " (JPEG does not keep values: write masks in another format)"
        return GeotuneError(
            f"{self.path}: has the class values {listed}{more}; expected {self._expected()}; "
            "map the values to classes with data.class_values, or ignore them with "
            "data.ignore_values",
            code="class-unknown",
            key="data.class_values",
            file=self.path,
        )

    def _describe(self, value: Any) -> str:
        """A value, or its colour; that of an index too."""
        if self.colors:
            return hex_color(value)
        text = str(value).removesuffix(".0")
        if self.palette and 0 <= value < len(self.palette) and self.palette[value] >= 0:
            text += f", of the colour {hex_color(self.palette[value])}"
        return text

    @property
    def index_colors(self) -> dict[int, tuple[int, ...]]:
        """Colours of each class in the palette of a file that is read by index, by class index."""
        if self.colors or not self.palette:
            return {}
        by_class: dict[int, tuple[int, ...]] = {}
        for value, i in self.mapping.index_by_number.items():
            if 0 <= value < len(self.palette):
                by_class[i] = (*by_class.get(i, ()), self.palette[value])
        return by_class

    def _expected(self) -> str:
        """The classes with their values or colours."""
        if not self.colors:
            return self.mapping.describe()
        items = self.mapping.index_by_number.items()
        return ", ".join(
            f"{name} ({' or '.join(hex_color(value) for value, index in items if index == i)})"
            for i, name in enumerate(self.classes)
        )


def open_raster_labels(
    path: Path, raster: RasterSource, mapping: ClassMapping, *, by_pixel: bool = False
) -> RasterLabels:
    """Open raster labels of the scene `raster`.

    A file on the scene's grid, or without georeference, is read pixel by pixel and must have the
    scene's size; one on another grid is resampled. Raises `GeotuneError` otherwise.
    """
    header = read_header(path)
    palette = _palette(header, mapping)
    colors = _has_colors(path, raster, mapping, header, palette)
    if colors and mapping.ignores_default:
        mapping = replace(mapping, ignored=())
    grid, overlaps, notes = align_to_grid(path, raster, header, by_pixel=by_pixel)
    values = header.joint_nodata or header.nodatavals
    nodata = _color(values) if colors else values[0]
    if nodata is not None and nodata in mapping.index_by_number:
        name = mapping.classes[mapping.index_by_number[int(nodata)]]
        text = hex_color(nodata) if colors else f"{nodata:g}"
        notes.append(f"{path}: its nodata value {text} maps to {name} and counts as {name}")
        nodata = None
    return RasterLabels(
        path=path,
        mapping=mapping,
        shape=raster.shape,
        grid=grid,
        nodata=nodata,
        mask=FileMask() if header.masked[0] and header.joint_nodata is None else None,
        fill=_unused_value(header.dtypes[0], mapping),
        overlaps=overlaps,
        notes=tuple(notes),
        colors=colors,
        palette=palette,
    )


def _color(values: Sequence[float | None]) -> int | None:
    """The colour of red, green and blue; None if one of these is none, and for a palette."""
    known = [int(value) for value in values[:3] if value is not None and value in range(256)]
    return known[0] << 16 | known[1] << 8 | known[2] if len(known) == 3 else None


def _palette(header: RasterHeader, mapping: ClassMapping) -> tuple[int, ...]:
    """The colours of a file with a palette; transparent ones only if they are a class's.

    Those of a file of grey levels are these, if numbers of classes are colours.
    """
    if header.palette is not None:
        entries = header.palette
    elif (
        header.count == 1
        and header.dtypes[0] == "uint8"
        and max(mapping.index_by_number, default=0) > MAX_NUMBER
    ):
        white = 2 ** (header.num_bits or 8) - 1
        entries = {i: (*(255 * i // white,) * 3, 255) for i in range(white + 1)}
    else:
        return ()
    colors = [0] * 2 ** (8 * np.dtype(header.dtypes[0]).itemsize)
    for index, (red, green, blue, alpha) in entries.items():
        color = red << 16 | green << 8 | blue
        opaque = alpha > 0 and index != header.nodatavals[0]
        colors[index] = color if opaque or color in mapping.index_by_number else TRANSPARENT
    return tuple(colors[: max(entries, default=0) + 1])


def _has_colors(
    path: Path,
    raster: RasterSource,
    mapping: ClassMapping,
    header: RasterHeader,
    palette: tuple[int, ...],
) -> bool:
    """Whether the values of classes are colours of a mask, rather than numbers.

    Those of a palette are, if they are no indices of it. Raises `GeotuneError` unless the mask has
    one band, or red, green, blue and perhaps alpha.
    """
    values = [*mapping.index_by_number]
    if header.count == 1:
        known = {*values, *mapping.ignored, TRANSPARENT}
        no_indices = mapping.explicit and max(values, default=0) >= len(palette) > 0
        return no_indices and (max(values) > _max_index(header) or known.issuperset(palette))
    alpha = ColorInterp.alpha in header.colorinterp[3:]
    if mapping.explicit and header.dtypes == ("uint8",) * (3 + alpha):
        return True
    raise GeotuneError(
        f"{path}: has {header.count} bands; expected one band of class values for {raster.path}; "
        "for a colour mask (red, green, blue of uint8) map colours to classes with "
        "data.class_values, as in water: 0x0000FF",
        code="class-values",
        key="data.class_values",
        file=path,
    )


def _max_index(header: RasterHeader) -> int:
    return int(np.iinfo(header.dtypes[0]).max)


def _unused_value(dtype: str, mapping: ClassMapping) -> float:
    """A value below those of `dtype`; for 64 bits one that no class has."""
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return float(np.finfo(kind).min)
    lowest = int(np.iinfo(kind).min)
    if kind.itemsize <= 4:
        return float(2 * lowest - 1)  # GDAL compares nodata with a tolerance
    used = mapping.index_by_number
    return float(next(value for value in itertools.count(lowest) if value not in used))


def hex_color(value: float) -> str:
    """A colour as in `data.class_values`."""
    return f"0x{int(value):06X}"
