"""The image of a scene: reads windows of its pixels, bands by name."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from geotune.data.raster.control_points import ControlPoints
from geotune.data.raster.crs import metres_per_pixel
from geotune.data.raster.io import Grid, disk_path, open_dataset, open_warped, raster_errors
from geotune.data.raster.nodata import FileMask, is_nodata
from geotune.data.raster.quality_mask import QualityMask
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError
from geotune.utils.text import did_you_mean

Image = NDArray[np.float32]

EXACT = {"uint8", "int8", "uint16", "int16", "float32"}
"""Data types that float32 represents exactly, so that GDAL may read them as float32."""


@dataclass(frozen=True)
class BandFile:
    """Where a band is stored.

    Attributes:
        path: the file.
        index: 1-based index of the band in the file.
        nodata: the band's nodata value.
        mask: where the file marks pixels without data; None if it does not.
        factor: side of a pixel of the file in pixels of the scene.
        grid: the grid that the file is resampled to; None to read its pixels unchanged.
        product: metadata of the Sentinel-2 product that the file belongs to; None for others.
        indexed: whether its values are indices of colours.
        turned: whether the file is shown in another orientation (EXIF).
    """

    path: Path
    index: int
    nodata: float | None
    mask: FileMask | None
    factor: int = 1
    grid: Grid | None = None
    product: Path | None = None
    indexed: bool = False
    turned: bool = False


class PixelBlock(NamedTuple):
    """The pixels of a window.

    Attributes:
        image: `(C, h, w)`, or `(C, T, h, w)` with dates; NaN where there is no data.
        invalid: where the files hold NaN or infinity outside nodata, same shape.
        masked: `(h, w)`, which pixels the quality mask flags; None without a mask.
    """

    image: Image
    invalid: NDArray[np.bool_]
    masked: NDArray[np.bool_] | None

    @property
    def valid(self) -> NDArray[np.bool_]:
        """The pixels `(h, w)` that have data and that no quality mask flags."""
        valid = has_data(self.image)
        return valid if self.masked is None else valid & ~self.masked


@dataclass(frozen=True)
class RasterSource:
    """The image of a scene. Holds no open file, so it can be sent to other processes and threads.

    Attributes:
        bands: names of the bands, in the order in which `read` returns them.
        band_files: where each band is stored; of an image of several dates, all dates of a band
            before those of the next.
        named: False if neither the files nor the user named the bands (band1, band2, ...).
        grid_shape: (H, W) of the files' grid.
        crs: coordinate reference system; None without georeference.
        transform: from pixels (column, row) of the grid to coordinates.
        acquired: acquisition date; None if neither the files nor their names state it.
        wavelengths: central wavelengths in micrometres, of the bands whose files state them.
        quality: mask of pixels whose labels, and on request values, are ignored.
        dates: of an image of several dates, in order; else empty.
        area: the part of the grid that this source covers; None for all of it.
        control_points: of files without other georeference.
        file_grid: the grid of the first file, if it is resampled.
    """

    bands: tuple[str, ...]
    band_files: tuple[BandFile, ...]
    named: bool
    grid_shape: tuple[int, int]
    crs: CRS | None
    transform: Affine
    acquired: date | None = None
    wavelengths: Mapping[str, float] = field(default_factory=dict)
    quality: QualityMask | None = None
    dates: tuple[date, ...] = ()
    area: Window | None = None
    control_points: ControlPoints | None = None
    file_grid: Grid | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) in pixels."""
        return self.grid_shape if self.area is None else self.area[2:]

    @property
    def num_dates(self) -> int:
        """The number of dates, at least 1."""
        return len(self.dates) or 1

    @property
    def gsd_m(self) -> float | None:
        """Ground sampling distance, the side of a pixel in metres; None if unknown."""
        return metres_per_pixel(self.crs, self.transform, self.grid_shape)

    @property
    def path(self) -> Path:
        """The first file."""
        return self.band_files[0].path

    @property
    def paths(self) -> tuple[Path, ...]:
        """All paths that are opened, without repeats."""
        return tuple(dict.fromkeys(file.path for file in self.band_files))

    @property
    def files(self) -> tuple[Path, ...]:
        """All files on disk, without repeats: for layers of an HDF5 file, that file."""
        return tuple(dict.fromkeys(map(disk_path, self.paths)))

    @property
    def nodata(self) -> float | None:
        """The first band's nodata value."""
        return self.band_files[0].nodata

    @property
    def georeferenced(self) -> bool:
        """Whether the location of its pixels on Earth is known."""
        return self.crs is not None and self.transform != Affine.identity()

    def select(self, bands: Sequence[str]) -> RasterSource:
        """The image with only `bands`, in their order. Raises `GeotuneError` if it lacks one."""
        missing = [band for band in bands if band not in self.bands]
        if missing and not self.named:
            raise GeotuneError(
                f"{self.path}: its {len(self.bands)} bands have no names; expected "
                f"{', '.join(bands)}: name them in file order with data.bands (alpha: "
                "transparency)",
                code="band-missing",
                key="data.bands",
                file=self.path,
            )
        if missing:
            hint = did_you_mean(missing[0], self.bands)
            raise GeotuneError(
                f"{self.path}: has no band {', '.join(missing)}; "
                f"it has {', '.join(self.bands)}{hint}",
                code="band-missing",
                key="backbone.bands",
                file=self.path,
            )
        starts = [self.bands.index(band) * self.num_dates for band in bands]
        files = [self.band_files[start + i] for start in starts for i in range(self.num_dates)]
        return replace(self, bands=tuple(bands), band_files=tuple(files))

    def crop(self, window: Window) -> RasterSource:
        """The part of the image in `window`: pixels around it have no data."""
        return replace(self, area=self.to_grid(window))

    def to_grid(self, window: Window) -> Window:
        """The same window in pixels of the grid, of which this source may cover a part."""
        if self.area is None:
            return window
        return window._replace(row=window.row + self.area.row, col=window.col + self.area.col)

    def read(self, window: Window, bands: Sequence[str] | None = None) -> Image:
        """Read `window` as `(C, h, w)`, or `(C, T, h, w)` with dates; NaN where there is no data.

        A pixel outside the image has no data. A pixel that holds the nodata value in one band has
        no data in that band; if the nodata value is NaN, or the file masks the pixel, it has no
        data in any band of that file. Infinite values become NaN.
        """
        return self.read_block(window, bands).image

    def read_block(self, window: Window, bands: Sequence[str] | None = None) -> PixelBlock:
        """Read `window` as `read` does, with invalid and masked pixels."""
        source = self if bands is None else self.select(bands)
        image = np.empty((len(source.band_files), window.height, window.width), dtype=np.float32)
        invalid = np.zeros(image.shape, dtype=np.bool_)
        inner = window.clip(self.shape)
        if inner != window:
            image.fill(np.nan)
        if inner is not None:
            rows, cols = inner.slices_in(window)
            source._read_files(self.to_grid(inner), image[:, rows, cols], invalid[:, rows, cols])
        masked = None if self.quality is None else self.quality.masked(self.to_grid(window))
        if masked is not None and self.quality is not None and self.quality.options.mask_image:
            image[:, masked] = np.nan
            invalid[:, masked] = False
        if source.dates:
            shape = (-1, source.num_dates, window.height, window.width)
            image, invalid = image.reshape(shape), invalid.reshape(shape)
        return PixelBlock(image, invalid, masked)

    def read_overview(self, step: int) -> Image:
        """Read every `step`-th pixel, from the overviews of the files if they have some.

        Returns `(C, ceil(H / step), ceil(W / step))`, with dates `(C, T, ...)`; NaN where there is
        no data.
        """
        area = self.to_grid(Window(0, 0, *self.shape))
        shape = math.ceil(area.height / step), math.ceil(area.width / step)
        image = np.empty((len(self.band_files), *shape), dtype=np.float32)
        self._read_files(area, image, np.zeros(image.shape, dtype=np.bool_))
        return image.reshape(-1, self.num_dates, *shape) if self.dates else image

    def _read_files(self, window: Window, image: Image, invalid: NDArray[np.bool_]) -> None:
        """Fill `image` and `invalid`, `(C * T, h, w)`, with a window inside the grid.

        A smaller image gets pixels at even distances.
        """
        empty: dict[Path, NDArray[np.bool_]] = {}  # without data in every band of the file
        groups: dict[object, list[int]] = {}
        for i, file in enumerate(self.band_files):
            # bands are resampled one by one
            key = file.path if file.grid is None else file
            groups.setdefault(key, []).append(i)
        for layers in groups.values():
            first = self.band_files[layers[0]]
            path, grid = first.path, first.grid
            empty.setdefault(path, np.zeros(image.shape[1:], dtype=np.bool_))
            sides = window.col, window.row, window.width, window.height
            file_window = RasterioWindow(*(side / first.factor for side in sides))
            with raster_errors(path):
                if grid is None:
                    handle = open_dataset(path)
                    indexes = [self.band_files[i].index for i in layers]
                else:
                    handle = open_warped(
                        path, grid, first.nodata, band=first.index, mask=first.mask
                    )
                    indexes = [1]
                raw = _read_into(image, layers, handle, indexes, file_window)
                if grid is None and first.mask is not None:
                    empty[path] |= first.mask.missing(handle, file_window, image.shape[1:])
            for i, index, values in zip(layers, indexes, raw, strict=True):
                dtype = np.dtype(handle.dtypes[index - 1])
                nodata = self.band_files[i].nodata
                nodata_pixels = is_nodata(values, nodata if grid is None else math.nan, dtype)
                if nodata_pixels is not None:
                    image[i][nodata_pixels] = np.nan
                    if nodata is not None and math.isnan(nodata):
                        empty[path] |= nodata_pixels
                if dtype.kind == "f":
                    infinite = ~np.isfinite(image[i])
                    image[i][infinite] = np.nan
                    invalid[i] = infinite if nodata_pixels is None else infinite & ~nodata_pixels
        for i, file in enumerate(self.band_files):
            if (missing := empty[file.path]).any():
                image[i][missing] = np.nan
                invalid[i][missing] = False


def has_data(image: Image) -> NDArray[np.bool_]:
    """Where any band of an image `(C, ..., h, w)` has data at any date, `(h, w)`."""
    first, *others = image.reshape(-1, *image.shape[-2:])
    valid = ~np.isnan(first)
    for layer in others:
        if valid.all():  # usually true after the first layer
            break
        valid |= ~np.isnan(layer)
    return np.asarray(valid)


def apply_affine(
    transform: Affine, xs: NDArray[np.float64], ys: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Transform many points: columns and rows to coordinates, or back with the inverse."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * xs + b * ys + c, d * xs + e * ys + f


def _read_into(
    image: Image,
    layers: Sequence[int],
    handle: DatasetReader | WarpedVRT,
    indexes: Sequence[int],
    window: RasterioWindow,
) -> NDArray[Any]:
    """Read bands into `layers` of an image, and return their raw values `(bands, h, w)`.

    Where float32 is exact, the raw values are the layers themselves.
    """
    evenly = slice(layers[0], layers[-1] + 1, layers[1] - layers[0] if layers[1:] else 1)
    spaced = list(range(evenly.start, evenly.stop, evenly.step))
    if spaced == layers and {handle.dtypes[index - 1] for index in indexes} <= EXACT:
        exact: NDArray[Any] = handle.read(indexes, window=window, out=image[evenly])
        return exact
    raw: NDArray[Any] = handle.read(
        indexes, window=window, out_shape=(len(indexes), *image.shape[1:])
    )
    with np.errstate(over="ignore"):  # values out of float32's range become infinite
        image[layers] = raw
    return raw
