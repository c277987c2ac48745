"""Writing maps: row by row into a tiled file, then a Cloud-Optimised GeoTIFF, then into place."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetWriter
from rasterio.transform import Affine
from rasterio.windows import Window

from geotune.palette import Color
from geotune.types import GeotuneError

NODATA = 255
"""The value of a pixel without data in every map."""

PROBABILITY_STEPS = 254
"""A probability p is stored as round(254 p): a quarter of float32's size, within 0.002."""

_CACHE_BYTES = 64 * 2**20


@contextmanager
def bounded_cache() -> Iterator[None]:
    """Keep GDAL's cache of blocks small: by default it grows to a share of the machine."""
    with rasterio.Env(GDAL_CACHEMAX=_CACHE_BYTES):
        yield


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A hidden folder whose files move into `folder` when the block ends well.

    Each file replaces one of its name in one step. When the block fails nothing of it remains.
    Raises `GeotuneError` where `folder` cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=".", suffix=".partial", dir=folder))
    except OSError as error:
        raise GeotuneError(
            f"{folder}: no folder that can be written to ({error.strerror}); choose another"
        ) from error
    try:
        yield staging
        for path in sorted(staging.iterdir()):
            with writing(folder / path.name):
                os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write into a `GeotuneError` that names the file."""
    try:
        yield
    except (OSError, rasterio.errors.RasterioError) as error:
        free = shutil.disk_usage(path.parent).free / 1e9
        raise GeotuneError(
            f"{path}: could not be written ({error}); {free:.1f} GB are free there"
        ) from error


class MapFile:
    """A uint8 map that is written rectangle by rectangle; `finish` makes it cloud-optimised."""

    def __init__(
        self,
        path: Path,
        *,
        shape: tuple[int, int],
        crs: CRS | None,
        transform: Affine,
        bands: Sequence[str],
    ) -> None:
        self.path = path
        self.raw = path.with_suffix(".raw.tif")
        placed = {} if transform == Affine.identity() else {"transform": transform}
        with writing(path), _unplaced():
            self.dataset: DatasetWriter = rasterio.open(
                self.raw,
                "w",
                driver="GTiff",
                height=shape[0],
                width=shape[1],
                count=len(bands),
                dtype="uint8",
                nodata=NODATA,
                crs=crs,
                tiled=True,
                blockxsize=256,
                blockysize=256,
                interleave="band",
                BIGTIFF="IF_SAFER",
                **placed,
            )
        self.dataset.descriptions = tuple(bands)

    def __enter__(self) -> MapFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.dataset.close()

    def write(self, row: int, col: int, values: NDArray[np.uint8]) -> None:
        """Write `(bands, h, w)` with its first pixel at (row, col)."""
        with writing(self.path):
            self.dataset.write(values, window=Window(col, row, values.shape[2], values.shape[1]))

    def finish(self, resampling: str) -> None:
        """Close the map and make it a Cloud-Optimised GeoTIFF with overviews by `resampling`."""
        with writing(self.path), _unplaced():
            self.dataset.close()
            rasterio.shutil.copy(
                self.raw,
                self.path,
                driver="COG",
                compress="DEFLATE",
                blocksize=512,
                overview_resampling=resampling,
                bigtiff="IF_SAFER",
            )
            self.raw.unlink()


def describe_classes(map_file: MapFile, classes: Sequence[str], colors: Sequence[Color]) -> None:
    """Give a map of class indices its colours and, as band tags `class_<index>`, its names."""
    table = {index: (*color, 255) for index, color in enumerate(colors)}
    map_file.dataset.write_colormap(1, table | {NODATA: (0, 0, 0, 0)})
    map_file.dataset.update_tags(1, **{f"class_{i}": name for i, name in enumerate(classes)})


def describe_probabilities(map_file: MapFile) -> None:
    """Say in a map of probabilities how its values are to be read."""
    count = map_file.dataset.count
    map_file.dataset.scales = (1 / PROBABILITY_STEPS,) * count
    map_file.dataset.update_tags(probability=f"value / {PROBABILITY_STEPS}; {NODATA}: no data")


def write_categories(path: Path, classes: Sequence[str]) -> None:
    """Put class names beside a map, as `<map>.aux.xml`: there GDAL and QGIS look for them.

    A GeoTIFF itself has no place for category names.
    """
    names = "".join(f"      <Category>{escape(name)}</Category>\n" for name in classes)
    path.with_name(path.name + ".aux.xml").write_text(
        '<PAMDataset>\n  <PAMRasterBand band="1">\n    <CategoryNames>\n'
        f"{names}    </CategoryNames>\n  </PAMRasterBand>\n</PAMDataset>\n",
        encoding="utf-8",
    )


@contextmanager
def _unplaced() -> Iterator[None]:
    """A scene without georeference is no fault of the user's: rasterio need not warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        yield
