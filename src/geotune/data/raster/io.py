"""Open raster files: one handle a file, thread and process, the least used closed first.

GDAL handles may neither cross a fork nor be shared by threads, so nothing that a dataset keeps
holds one: every read asks here by path.
"""

from __future__ import annotations

import math
import os
import threading
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.io import DatasetReader
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT

from geotune.errors import GeotuneError

MAX_OPEN = 128
"""Open files a thread; systems allow a process 256 and more."""

DENSEST = 10_000
"""Bytes of pixels that a byte of a file stands for at most; what claims more is damaged."""

LEAST_CLAIM = 2**20
"""Bytes of pixels that any file may claim."""

HDF5 = ".hdf5"
"""Files of this suffix hold layers, each a raster."""

Grid = tuple[CRS, Affine, tuple[int, int]]
"""CRS, transform and shape (H, W) of a raster."""

quiet = threading.Lock()
"""Held where rasterio silences warnings: it does so for the whole process, not for the thread."""


class _Handles(threading.local):
    def __init__(self) -> None:
        self.process = os.getpid()
        self.open: OrderedDict[object, DatasetReader | WarpedVRT] = OrderedDict()
        self.inherited: list[object] = []

    def of_this_process(self) -> OrderedDict[object, DatasetReader | WarpedVRT]:
        if self.process != os.getpid():
            self.process = os.getpid()
            self.inherited.append(self.open)  # the parent's: neither read nor closed here
            self.open = OrderedDict()
        return self.open


_handles = _Handles()


@contextmanager
def raster_errors(path: Path, doing: str = "read") -> Iterator[None]:
    """Turn rasterio's errors about `path` into a `GeotuneError` that names it."""
    try:
        yield
    except RasterioError as error:
        if not file_of(path).exists():
            raise GeotuneError(f"{path}: there is no such file; mend the path") from error
        reason = str(error.__cause__ or error)
        raise GeotuneError(
            f"{path}: cannot be {doing} as a raster ({reason}); it may be truncated or of "
            "another kind: fetch or write it anew"
        ) from error


def open_dataset(path: Path, *, anew: bool = False) -> DatasetReader:
    """The open file at `path`; with `anew` as it is now, not as it was when last opened.

    Raises `GeotuneError` if it is missing or no raster.
    """
    found = None if anew else _cached(path)
    if found is None:
        found = _keep(path, _open(path))
    assert isinstance(found, DatasetReader)
    return found


def warped(path: Path, grid: Grid, outside: float) -> WarpedVRT:
    """The first band of `path` on another grid, by nearest pixel; `outside` where it has none."""
    # a value that no class has: the file's own nodata may be a class
    options = {"resampling": Resampling.nearest, "src_nodata": outside, "nodata": outside}
    return _warped(path, grid, options)


def open_warped(path: Path, grid: Grid, nodata: float | None, *, masked: bool = False) -> WarpedVRT:
    """The bands of `path` on another grid as float32, bilinearly; NaN where there is no data.

    Pixels without data do not weigh in; where the grid is coarser, what a pixel covers is averaged.
    `masked`: the file's own mask says where there is none.
    """
    options: dict[str, Any] = {
        "resampling": Resampling.bilinear,
        "nodata": math.nan,
        "dtype": "float32",
    }
    if not masked:
        options["src_nodata"] = math.nan if nodata is None else nodata
    return _warped(path, grid, options)


def _warped(path: Path, grid: Grid, options: dict[str, Any]) -> WarpedVRT:
    key = (path, grid, str(options))
    found = _cached(key)
    if found is None:
        crs, transform, (height, width) = grid
        source = _open(path)
        with raster_errors(path, "reprojected"), quiet:
            vrt = WarpedVRT(
                source, crs=crs, transform=transform, height=height, width=width, **options
            )
        found = _keep(key, vrt)
    assert isinstance(found, WarpedVRT)
    return found


def _open(path: Path) -> DatasetReader:
    with (
        raster_errors(path, "opened"),
        quiet,
        warnings.catch_warnings(),
        # a folder of thousands of chips would be listed anew for every file
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="TRUE"),
    ):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        handle = rasterio.open(_address(path), sharing=False)
    if handle.driver != "VRT":  # which stands for other files
        _plausible(path, handle)
    return handle


def _plausible(path: Path, handle: DatasetReader) -> None:
    """Raise `GeotuneError` for more pixels than a file of its size can hold.

    Memory is made for them before the first is read.
    """
    bytes_a_pixel = sum(np.dtype(dtype).itemsize for dtype in handle.dtypes)
    claimed, held = handle.width * handle.height * bytes_a_pixel, file_of(path).stat().st_size
    if claimed > max(LEAST_CLAIM, DENSEST * held):
        raise GeotuneError(
            f"{path}: says it has {handle.height}x{handle.width} pixels of {handle.count} bands, "
            f"{claimed / 1e9:,.1f} GB, but is {held:,} bytes long; it is damaged or truncated: "
            "fetch or write it anew"
        )


def layers(path: Path) -> list[str]:
    """Names of an HDF5 file's layers; each is opened by `path / name`."""
    with raster_errors(path, "opened"), rasterio.open(path) as file:
        return [name.rpartition("://")[2] for name in file.subdatasets]


def file_of(path: Path) -> Path:
    """The file on the disk: of a layer in an HDF5 file that file."""
    return path.parent if path.parent.suffix == HDF5 else path


def _address(path: Path) -> str | Path:
    """How GDAL calls it."""
    return f'HDF5:"{path.parent}"://{path.name}' if path.parent.suffix == HDF5 else path


def _cached(key: object) -> DatasetReader | WarpedVRT | None:
    handles = _handles.of_this_process()
    found = handles.get(key)
    if found is not None:
        handles.move_to_end(key)
    return found


def _keep(key: object, found: DatasetReader | WarpedVRT) -> DatasetReader | WarpedVRT:
    handles = _handles.of_this_process()
    handles[key] = found
    if len(handles) > MAX_OPEN:
        _, oldest = handles.popitem(last=False)
        oldest.close()
    return found
