"""A scene's image: windows of its pixels, bands by name."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from geotune.data.raster.io import Grid, file_of, open_dataset, open_warped, raster_errors
from geotune.data.raster.metadata import metres_per_pixel
from geotune.data.raster.windows import Window
from geotune.errors import GeotuneError

if TYPE_CHECKING:
    from geotune.data.scenes.quality import Quality

Image = NDArray[np.float32]

EXACT = {"uint8", "int8", "uint16", "int16", "float32"}
"""Types of which float32 holds every value, so that they are read as it."""


@dataclass(frozen=True)
class BandFile:
    """Where a band is: file, 1-based index in it, its nodata value, whether a mask hides pixels.

    `factor`: how many of the scene's pixels a pixel of the file is wide. With a `grid`, its pixels
    are computed anew on that.
    """

    path: Path
    index: int
    nodata: float | None
    masked: bool
    factor: int = 1
    grid: Grid | None = None


@dataclass(frozen=True)
class RasterSource:
    """A scene's image. Holds no open file, so it can be sent to other processes and threads.

    Attributes:
        bands: names of the bands, in the order in which `read` gives them.
        places: where each of them is.
        named: false where neither the files nor the user gave names (they are band1, band2, ...).
        shape: (H, W) in pixels.
        crs: coordinate reference system, None where the files have none.
        transform: from pixels (column, row) to coordinates.
        acquired: the day it was taken, None where neither the files nor their names say.
        dates: the days, first to last, of an image of several; else empty. `places` has all of a
            band before those of the next.
        wavelengths: centres of those bands in micrometres of which the files say it.
        quality: which pixels are not to be learnt from, beside those without data.
    """

    bands: tuple[str, ...]
    band_files: tuple[BandFile, ...]
    named: bool
    shape: tuple[int, int]
    crs: CRS | None
    transform: Affine
    acquired: date | None = None
    wavelengths: Mapping[str, float] = field(default_factory=dict)
    quality: Quality | None = None
    dates: tuple[date, ...] = ()

    @property
    def num_dates(self) -> int:
        """How many dates there are."""
        return len(self.dates) or 1

    @property
    def gsd_m(self) -> float | None:
        """The side of a pixel in metres, None where the files do not say."""
        return metres_per_pixel(self.crs, self.transform, self.shape)

    @property
    def path(self) -> Path:
        """The file, or the first of the files."""
        return self.band_files[0].path

    @property
    def paths(self) -> tuple[Path, ...]:
        """What is opened, each once."""
        return tuple(dict.fromkeys(place.path for place in self.band_files))

    @property
    def files(self) -> tuple[Path, ...]:
        """Those on the disk, each once: of layers in HDF5 the file that holds them."""
        return tuple(dict.fromkeys(map(file_of, self.paths)))

    @property
    def nodata(self) -> float | None:
        """The first band's nodata value."""
        return self.band_files[0].nodata

    @property
    def georeferenced(self) -> bool:
        """Whether pixels have a place on Earth."""
        return self.crs is not None and self.transform != Affine.identity()

    def select(self, bands: Sequence[str]) -> RasterSource:
        """The same scene with `bands` only, in their order. Raises `GeotuneError` for others."""
        missing = [band for band in bands if band not in self.bands]
        if missing and not self.named:
            raise GeotuneError(
                f"{self.path}: its {len(self.bands)} bands have no names, expected "
                f"{', '.join(bands)}; name them in file order with data.bands"
            )
        if missing:
            near = difflib.get_close_matches(missing[0], self.bands, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise GeotuneError(
                f"{self.path}: has no band {', '.join(missing)}; "
                f"it has {', '.join(self.bands)}{hint}"
            )
        starts = [self.bands.index(band) * self.num_dates for band in bands]
        places = [self.band_files[start + i] for start in starts for i in range(self.num_dates)]
        return replace(self, bands=tuple(bands), band_files=tuple(places))

    def read(self, window: Window, bands: Sequence[str] | None = None) -> Image:
        """Pixels of `window` as `(C, h, w)`; NaN where there is no data and beyond the edges.

        Those of several dates are `(C, T, h, w)`.

        A band that alone holds nodata is NaN alone; where nodata is itself NaN, one such band
        makes the pixel invalid in all. Infinite values become NaN.
        """
        return self.inspect(window, bands)[0]

    def inspect(
        self, window: Window, bands: Sequence[str] | None = None
    ) -> tuple[Image, NDArray[np.bool_]]:
        """As `read`, and where in it NaN or infinity stood in the file outside nodata."""
        source = self if bands is None else self.select(bands)
        image = np.empty((len(source.band_files), window.height, window.width), dtype=np.float32)
        wrong = np.zeros(image.shape, dtype=np.bool_)
        inner = window.clip(self.shape)
        if inner != window:
            image.fill(np.nan)
        if inner is not None:
            rows, cols = inner.within(window)
            source._fill(inner, image[:, rows, cols], wrong[:, rows, cols])
        if self.quality is not None and self.quality.rule.mask_image:
            hidden = self.quality.flagged(window)
            image[:, hidden] = np.nan
            wrong[:, hidden] = False
        if source.dates:
            shape = (-1, source.num_dates, window.height, window.width)
            return image.reshape(shape), wrong.reshape(shape)
        return image, wrong

    def clear(self, window: Window) -> NDArray[np.bool_]:
        """The pixels `(h, w)` of a window that no mask of quality flags."""
        if self.quality is None:
            return np.ones((window.height, window.width), dtype=np.bool_)
        return ~self.quality.flagged(window)

    def _fill(self, window: Window, image: Image, wrong: NDArray[np.bool_]) -> None:
        invalid = np.zeros((self.num_dates, *image.shape[1:]), dtype=np.bool_)
        for path in self.paths:
            where = [i for i, place in enumerate(self.band_files) if place.path == path]
            indexes = [self.band_files[i].index for i in where]
            factor = self.band_files[where[0]].factor
            file_window = RasterioWindow(
                *(side / factor for side in (window.col, window.row, window.width, window.height))
            )
            with raster_errors(path):
                first = self.band_files[where[0]]
                if first.grid is None:
                    handle = open_dataset(path)
                else:
                    handle = open_warped(path, first.grid, first.nodata, masked=first.masked)
                raw = _read_into(image, where, handle, indexes, file_window)
                if first.masked:
                    mask = handle.dataset_mask(window=file_window, out_shape=image.shape[1:])
                    invalid[where[0] % self.num_dates] |= mask == 0
            for i, index, values in zip(where, indexes, raw, strict=True):
                kind = np.dtype(handle.dtypes[index - 1])
                nodata = self.band_files[i].nodata
                missing = _is_nodata(values, nodata if first.grid is None else math.nan, kind)
                if missing is not None:
                    image[i][missing] = np.nan
                    if nodata is not None and math.isnan(nodata):
                        invalid[i % self.num_dates] |= missing
                if kind.kind == "f":
                    unfit = ~np.isfinite(image[i])
                    image[i][unfit] = np.nan
                    wrong[i] = unfit if missing is None else unfit & ~missing
        for step in np.flatnonzero(invalid.any(axis=(1, 2))):
            hidden = invalid[step]
            image[step :: self.num_dates, hidden] = np.nan
            wrong[step :: self.num_dates, hidden] = False


def apply_affine(
    transform: Affine, xs: NDArray[np.float64], ys: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """An affine map of many points: from columns and rows to coordinates, or back."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return a * xs + b * ys + c, d * xs + e * ys + f


def _read_into(
    image: Image,
    where: Sequence[int],
    handle: DatasetReader | WarpedVRT,
    indexes: Sequence[int],
    window: RasterioWindow,
) -> NDArray[Any]:
    """Read bands into the layers `where` of an image; also gives their values `(bands, h, w)`.

    These are the layers themselves where float32 holds all that the file may.
    """
    evenly = slice(where[0], where[-1] + 1, where[1] - where[0] if where[1:] else 1)
    layers = list(range(evenly.start, evenly.stop, evenly.step))
    if layers == where and {handle.dtypes[index - 1] for index in indexes} <= EXACT:
        exact: NDArray[Any] = handle.read(indexes, window=window, out=image[evenly])
        return exact
    raw: NDArray[Any] = handle.read(
        indexes, window=window, out_shape=(len(indexes), *image.shape[1:])
    )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite
        image[where] = raw
    return raw


def _is_nodata(
    values: NDArray[Any], nodata: float | None, kind: np.dtype[Any]
) -> NDArray[np.bool_] | None:
    """Where values are nodata; None where there is no such value or the file cannot hold it.

    `kind` is the file's type, of which the values may have been read as floats.
    """
    if nodata is None:
        return None
    if math.isnan(nodata):
        return np.isnan(values) if kind.kind == "f" else None
    if kind.kind != "f":
        info = np.iinfo(kind)
        if not (info.min <= nodata <= info.max and float(nodata).is_integer()):
            return None
    return np.asarray(values == kind.type(nodata))
