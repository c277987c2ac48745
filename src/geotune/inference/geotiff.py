"""Write maps: blocks into a tiled file, then a Cloud-Optimised GeoTIFF, then move it in place."""

from __future__ import annotations

import os
import shutil
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetWriter
from rasterio.transform import Affine
from rasterio.windows import Window

from geotune.data.raster.io import open_dataset
from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError
from geotune.inference.cell_grid import CellGrid
from geotune.utils.atomic import staging_folder
from geotune.utils.colors import Color

NODATA = 255
"""Nodata value of class and probability maps."""

PROBABILITY_SCALE = 254
"""A probability p is stored as round(254 p): a quarter of the size of float32, within 0.002."""

_CACHE_BYTES = 64 * 2**20
_BLOCK_BYTES = 32 * 2**20
"""Largest block of a Cloud-Optimised GeoTIFF, which holds all bands, unless it is the smallest."""


@contextmanager
def bounded_gdal_cache() -> Iterator[None]:
    """Limit GDAL's block cache, which defaults to a fraction of the machine's memory."""
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
        yield


@contextmanager
def atomic_output(folder: Path) -> Iterator[Path]:
    """A hidden folder whose files are moved to `folder` if the context exits without an error.

    Each file is replaced atomically; after an error the hidden folder is removed, and after a kill
    by the next process that writes to `folder`. Raises `GeotuneError` if `folder` cannot be
    created or written.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            staging = stack.enter_context(staging_folder(folder))
        except OSError as error:
            raise GeotuneError(
                f"{folder}: not a writable folder ({error.strerror}); choose another",
                code="output-not-writable",
                file=folder,
            ) from error
        yield staging
        for path in sorted(staging.iterdir()):
            with write_errors(folder / path.name):
                os.replace(path, folder / path.name)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn write errors into a `GeotuneError` with the file."""
    try:
        yield
    except (OSError, rasterio.errors.RasterioError, CPLE_BaseError) as error:
        free = shutil.disk_usage(path.parent).free / 1e9
        raise GeotuneError(
            f"{path}: cannot be written ({error.__cause__ or error}); {free:.1f} GB are free",
            code="output-not-writable",
            file=path,
        ) from error


class GeoTiffWriter:
    """Writes a map block by block; `finish` converts it to a Cloud-Optimised GeoTIFF."""

    def __init__(
        self,
        path: Path,
        *,
        shape: tuple[int, int],
        crs: CRS | None,
        transform: Affine,
        bands: Sequence[str],
        dtype: str = "uint8",
        nodata: float = NODATA,
        gcps: Sequence[GroundControlPoint] = (),
    ) -> None:
        self.path = path
        self.predictor = "FLOATING_POINT" if dtype == "float32" else "NO"
        self.raw = path.with_suffix(".raw.tif")
        self.block_side = 512
        while self.block_side > 128 and (
            self.block_side**2 * len(bands) * np.dtype(dtype).itemsize > _BLOCK_BYTES
        ):
            self.block_side //= 2
        georeference: dict[str, Any] = {"gcps": gcps} if gcps else {"transform": transform}
        if not gcps and transform == Affine.identity():
            georeference = {}
        with write_errors(path), ignore_missing_georeference():
            self.dataset: DatasetWriter = rasterio.open(
                self.raw,
                "w",
                driver="GTiff",
                height=shape[0],
                width=shape[1],
                count=len(bands),
                dtype=dtype,
                nodata=nodata,
                crs=crs,
                tiled=True,
                blockxsize=256,
                blockysize=256,
                interleave="band",
                BIGTIFF="IF_SAFER",
                **georeference,
            )
        self.dataset.descriptions = tuple(bands)

    @classmethod
    def for_scene(
        cls, path: Path, source: RasterSource, bands: Sequence[str], **options: Any
    ) -> GeoTiffWriter:
        """A map with the size, CRS and transform of a scene, or its ground control points."""
        gcps, gcps_crs = ground_control_points(source)
        return cls(
            path,
            shape=source.shape,
            crs=gcps_crs if gcps else source.crs,
            transform=source.transform,
            bands=bands,
            gcps=gcps,
            **options,
        )

    @classmethod
    def for_cells(
        cls, path: Path, source: RasterSource, bands: Sequence[str], grid: CellGrid, **options: Any
    ) -> GeoTiffWriter:
        """A map on a grid of cells over a scene, georeferenced as in `for_scene`."""
        gcps, gcps_crs = ground_control_points(source)
        side = grid.stride
        return cls(
            path,
            shape=grid.shape(source.shape),
            crs=gcps_crs if gcps else source.crs,
            transform=source.transform
            if source.transform == Affine.identity()
            else source.transform @ Affine.scale(side),
            bands=bands,
            gcps=[
                GroundControlPoint(p.row / side, p.col / side, p.x, p.y, p.z, p.id, p.info)
                for p in gcps
            ],
            **options,
        )

    def __enter__(self) -> GeoTiffWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.dataset.close()

    def write(self, row: int, col: int, values: NDArray[Any]) -> None:
        """Write a block `(bands, h, w)` whose first pixel is (row, col)."""
        with write_errors(self.path):
            self.dataset.write(values, window=Window(col, row, values.shape[2], values.shape[1]))

    def finish(self, resampling: str) -> None:
        """Close the map and convert it, with overviews by `resampling`."""
        with write_errors(self.path), ignore_missing_georeference():
            self.dataset.close()
            rasterio.shutil.copy(
                self.raw,
                self.path,
                driver="COG",
                compress="DEFLATE",
                predictor=self.predictor,
                blocksize=self.block_side,
                overview_resampling=resampling,
                bigtiff="IF_SAFER",
            )
            self.raw.unlink()
            _read_all(self.path)


def _read_all(path: Path) -> None:
    """Read every block: on a full disk, GDAL closes a truncated file without an error."""
    with rasterio.open(path) as file:
        for _, window in file.block_windows(1):
            file.read(window=window)


def ground_control_points(
    source: RasterSource,
) -> tuple[Sequence[GroundControlPoint], CRS | None]:
    """The ground control points of a scene without other georeference, and their CRS."""
    if source.crs is not None or source.transform != Affine.identity():
        return (), None
    gcps: tuple[Sequence[GroundControlPoint], CRS | None] = open_dataset(source.path).gcps
    return gcps


def check_file_stem(name: str) -> None:
    """Raise `GeotuneError` for a name that is not a valid file stem."""
    controls = any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name)
    if name in ("", "..") or Path(name).name != name or controls:
        raise GeotuneError(
            f"name: found {name!r}, expected a file name without folder, suffix or control "
            "characters",
            code="option-invalid",
        )


def scene_notes(source: RasterSource, windows: int) -> list[str]:
    """Notes on the map of a scene of which `windows` windows had data."""
    notes = []
    if ground_control_points(source)[0]:
        notes.append(
            f"{source.path}: georeferenced by ground control points, which maps keep; polygons and "
            "objects are in pixels. Warp the scene first (gdalwarp) for coordinates"
        )
    elif source.crs is None:
        notes.append(f"{source.path}: no CRS, so the map has none")
    if windows == 0:
        notes.append(f"{source.path}: no pixel has data, so the map is empty")
    return notes


def describe_classes(
    map_file: GeoTiffWriter, classes: Sequence[str], colors: Sequence[Color]
) -> None:
    """Write the colour table, and class names as band tags `class_<index>`."""
    table = {index: (*color, 255) for index, color in enumerate(colors)}
    map_file.dataset.write_colormap(1, table | {NODATA: (0, 0, 0, 0)})
    map_file.dataset.update_tags(1, **{f"class_{i}": name for i, name in enumerate(classes)})


def describe_probabilities(map_file: GeoTiffWriter, quantity: str = "probability") -> None:
    """Write scale and nodata of a map of probabilities, or of another quantity from 0 to 1."""
    count = map_file.dataset.count
    map_file.dataset.scales = (1 / PROBABILITY_SCALE,) * count
    map_file.dataset.update_tags(**{quantity: f"value / {PROBABILITY_SCALE}; {NODATA}: no data"})


def write_categories(path: Path, classes: Sequence[str]) -> None:
    """Write class names to `<map>.aux.xml`, which GDAL and QGIS read.

    GeoTIFFs cannot hold category names themselves.
    """
    names = "".join(f"      <Category>{escape(name)}</Category>\n" for name in classes)
    path.with_name(path.name + ".aux.xml").write_text(
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{names}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n",
        encoding="utf-8",
    )


@contextmanager
def ignore_missing_georeference() -> Iterator[None]:
    """Suppress rasterio's warning: scenes without georeference are supported."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
