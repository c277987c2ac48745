"""Pool of open raster files: one handle per file, thread and process, least recently used closed.

GDAL handles must not cross a fork or be shared between threads, so datasets never store one:
every read looks its handle up here by path.
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
from rasterio.transform import Affine, from_gcps
from rasterio.vrt import WarpedVRT
from rasterio.warp import transform as transform_points
from rasterio.windows import Window as RasterioWindow

from geotune.data.raster.control_points import (
    control_points,
    on_grid_points,
    open_warped_by_points,
)
from geotune.data.raster.longitude_axis import Placement, place
from geotune.data.raster.nodata import FileMask
from geotune.data.raster.single_band import open_single_band, repeat_columns
from geotune.errors import GeotuneError
from geotune.utils.remote import gdal_name, refers_to_server, scheme_of

MAX_OPEN_FILES = 128
"""Open files per thread; operating systems allow at least 256 per process."""

MAX_COMPRESSION = 10_000
"""Bytes of pixels per byte of file above which a header may be damaged."""

MAX_BLOCK_BYTES = 2**28
"""Blocks of pixels that are larger are not read to find out."""

MIN_CHECKED_BYTES = 2**20
"""Rasters with fewer bytes of pixels are not checked against their file size."""

HDF5 = ".hdf5"
"""Suffix of files that hold layers, each of them a raster."""

Grid = tuple[CRS | None, Affine, tuple[int, int]]
"""CRS, transform and shape (H, W) of a raster."""

warnings_lock = threading.Lock()
"""Hold it where rasterio silences warnings, which it does for the whole process."""


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
def raster_errors(path: Path, action: str = "read") -> Iterator[None]:
    """Turn rasterio's errors about `path` into a `GeotuneError`."""
    try:
        yield
    except RasterioError as error:
        if not disk_path(path).exists():
            raise GeotuneError(
                f"{path}: file not found; check the path", code="file-missing", file=path
            ) from error
        reason = str(error.__cause__ or error)
        if scheme_of(path) is None and refers_to_server(disk_path(path)):
            raise GeotuneError(
                f"{path}: cannot be {action}, because it names files or services on servers "
                f"({reason}); add --remote to read from them, or download what it names",
                code="file-remote",
                file=path,
            ) from error
        raise GeotuneError(
            f"{path}: cannot be {action} as a raster ({reason}); it may be truncated or in another "
            "format: download or write it again",
            code="file-unreadable",
            file=path,
        ) from error


def open_dataset(path: Path, *, reopen: bool = False) -> DatasetReader:
    """Open the raster at `path`, or return the open handle unless `reopen`.

    Raises `GeotuneError` if it is missing or not a raster.
    """
    handle = None if reopen else _cached(path)
    if handle is None:
        handle = _keep(path, _open(path))
    assert isinstance(handle, DatasetReader)
    return handle


def close_dataset(path: Path) -> None:
    """Close the raster at `path` if this thread has it open."""
    handle = _handles.of_this_process().pop(path, None)
    if handle is not None:
        handle.close()


def open_warped_nearest(
    path: Path, grid: Grid, fill: float, *, band: int = 1, mask: FileMask | None = None
) -> DatasetReader | WarpedVRT:
    """Open a band of `path` resampled to `grid` by nearest neighbour; `fill` outside its pixels."""
    # `fill` is a value that no class has: the file's own nodata may be a class
    options = {"resampling": Resampling.nearest, "src_nodata": fill, "nodata": fill}
    return _warped(path, grid, band, mask, options)


def open_warped(
    path: Path,
    grid: Grid,
    nodata: float | None,
    *,
    band: int = 1,
    mask: FileMask | None = None,
    nearest: bool = False,
) -> DatasetReader | WarpedVRT:
    """Open a band of `path` resampled bilinearly to `grid` as float32; NaN without data.

    Pixels with the nodata value, or without data by the file's `mask`, have no weight. On a coarser
    grid, pixels are averages. With `nearest`, pixels have the value of the nearest one.
    """
    options: dict[str, Any] = {
        "resampling": Resampling.nearest if nearest else Resampling.bilinear,
        "nodata": math.nan,
        "dtype": "float32",
        "src_nodata": math.nan if nodata is None else nodata,
    }
    return _warped(path, grid, band, mask, options)


def _warped(
    path: Path, grid: Grid, band: int, mask: FileMask | None, options: dict[str, Any]
) -> DatasetReader | WarpedVRT:
    key = (path, grid, band, mask, str(options))
    handle = _cached(key)
    if handle is None:
        crs, transform, (height, width) = grid
        source = _open(path)
        control = control_points(source)
        if control is not None and crs is not None:
            points = on_grid_points(control, crs, transform, (height, width))
            placed = Placement(crs, from_gcps(points))
        else:  # labels without a CRS are in that of the image
            points = None
            placed = place(source.crs or crs, source.transform, source.shape, grid)
        options = {**options, **_resampling_factors(placed, grid)}
        with raster_errors(path, "reprojected"), warnings_lock, warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            single = open_single_band(source, band, options["src_nodata"], mask)
            if placed.copies > 1:
                single = repeat_columns(single, placed.period, placed.copies)
            handle = (
                WarpedVRT(
                    single,
                    src_crs=placed.crs,
                    src_transform=placed.transform,
                    crs=crs,
                    transform=transform,
                    height=height,
                    width=width,
                    **options,
                )
                if points is None
                else open_warped_by_points(single, points, grid, options)
            )
        handle = _keep(key, handle)
    return handle


def _resampling_factors(source: Placement, grid: Grid) -> dict[str, float]:
    """GDAL's XSCALE and YSCALE: pixels of the grid per pixel of the source, at the grid's centre.

    Otherwise GDAL derives them from the window that is read, and the same pixel has other values in
    other windows.
    """
    crs, transform, (height, width) = grid
    middle = np.array([[width, height], [width + 2, height], [width, height + 2]]) / 2
    xs, ys = transform @ (middle[:, 0], middle[:, 1])
    if crs is not None and source.crs is not None and crs != source.crs:
        xs, ys = (np.array(v) for v in transform_points(crs, source.crs, xs, ys))
    columns, rows = ~source.transform @ (xs, ys)
    steps = {
        "XSCALE": abs(columns[1] - columns[0]) + abs(columns[2] - columns[0]),
        "YSCALE": abs(rows[1] - rows[0]) + abs(rows[2] - rows[0]),
    }
    return {name: 1 / step for name, step in steps.items() if 0 < step < math.inf}


def _open(path: Path) -> DatasetReader:
    with (
        raster_errors(path, "opened"),
        warnings_lock,
        warnings.catch_warnings(),
        # else GDAL lists a folder of thousands of chips for every file in it
        rasterio.Env(GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR" if scheme_of(path) else "TRUE"),
    ):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        handle = rasterio.open(_gdal_name(path), sharing=False)
    if handle.driver != "VRT":  # a VRT refers to other files
        _check_size(path, handle)
    return handle


def _check_size(path: Path, handle: DatasetReader) -> None:
    """Raise `GeotuneError` if the header claims more pixels than the file can hold.

    GDAL would allocate memory for them before reading the first. A file that compresses very well,
    is sparse, or has its pixels in another file holds its last pixel; a damaged one does not.
    """
    bytes_per_pixel = sum(np.dtype(dtype).itemsize for dtype in handle.dtypes)
    claimed = handle.width * handle.height * bytes_per_pixel
    file_bytes = disk_path(path).stat().st_size
    if claimed <= max(MIN_CHECKED_BYTES, MAX_COMPRESSION * file_bytes):
        return
    reason = None
    height, width = handle.block_shapes[0]
    if height * width * bytes_per_pixel <= MAX_BLOCK_BYTES:
        last = RasterioWindow(handle.width - 1, handle.height - 1, 1, 1)
        try:
            handle.read(handle.count, window=last)
        except RasterioError as error:
            reason = error
        else:
            return
    raise GeotuneError(
        f"{path}: its header claims {handle.height}x{handle.width} pixels in {handle.count} "
        f"bands, {claimed / 1e9:,.1f} GB, but the file has {file_bytes:,} bytes; it is damaged "
        "or truncated: download or write it again",
        code="file-unreadable",
        file=path,
    ) from reason


def hdf5_layers(path: Path) -> list[str]:
    """List the layers of an HDF5 file; open one as `path / name`."""
    with raster_errors(path, "opened"), rasterio.open(path) as file:
        return [name.rpartition("://")[2] for name in file.subdatasets]


def disk_path(path: Path) -> Path:
    """The file on disk: for a layer of an HDF5 file, that file."""
    return path.parent if path.parent.suffix == HDF5 else path


def _gdal_name(path: Path) -> str:
    if path.parent.suffix == HDF5:
        return f'HDF5:"{gdal_name(path.parent)}"://{path.name}'
    return gdal_name(path)


def _cached(key: object) -> DatasetReader | WarpedVRT | None:
    handles = _handles.of_this_process()
    handle = handles.get(key)
    if handle is not None:
        handles.move_to_end(key)
    return handle


def _keep(key: object, handle: DatasetReader | WarpedVRT) -> DatasetReader | WarpedVRT:
    handles = _handles.of_this_process()
    handles[key] = handle
    if len(handles) > MAX_OPEN_FILES:
        _, oldest = handles.popitem(last=False)
        oldest.close()
    return handle
