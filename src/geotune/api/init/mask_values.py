"""The values in masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from geotune.api.init.layout import PAGES
from geotune.data.raster.header import RasterHeader, read_header
from geotune.data.raster.io import open_dataset, raster_errors
from geotune.data.raster.windows import blocks
from geotune.errors import GeotuneError
from geotune.utils.progress import OnProgress

MAX_CLASSES = 64
"""Masks with more values hold a quantity, or colours that were changed by compression."""

BLOCK = 1024


@dataclass(frozen=True)
class MaskValues:
    """What masks hold.

    Attributes:
        pixels: number of pixels of each value; colours as 0xRRGGBB.
        colors: whether values are colours.
        continuous: whether the masks hold a quantity; then `pixels` is not complete.
        low, high: lowest and highest value read.
    """

    pixels: Counter[int]
    colors: bool
    continuous: bool
    low: float
    high: float


def read_mask_values(paths: Sequence[Path], on_progress: OnProgress) -> MaskValues:
    """Read the values of all masks. Raises `GeotuneError` for a mask without classes."""
    headers = [read_header(path) for path in paths]
    colors = any(header.count >= 3 for header in headers)
    pixels: Counter[float] = Counter()
    for i, (path, header) in enumerate(zip(paths, headers, strict=True)):
        if (
            header.count == 2
            or header.count > 4
            or (header.count > 1 and header.dtypes[0] != "uint8")
        ):
            raise GeotuneError(
                f"{path}: has {header.count} bands of {header.dtypes[0]}; expected masks of one "
                "band, or of red, green and blue of uint8; check which files are masks",
                code="class-values",
                key="data.labels",
                file=path,
            )
        for block in blocks(header.shape, BLOCK):
            values, counts = np.unique(_read(path, header, block, colors), return_counts=True)
            pixels.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
            if len(pixels) > MAX_CLASSES or any(value != int(value) for value in pixels):
                if colors:
                    raise _too_many_colors(path)
                return MaskValues(Counter(), False, True, min(pixels), max(pixels))
        on_progress("reading masks", i + 1, len(paths))
    ints = Counter({int(value): count for value, count in pixels.items()})
    return MaskValues(ints, colors, False, min(ints, default=0), max(ints, default=0))


def _read(
    path: Path, header: RasterHeader, block: tuple[int, int, int, int], colors: bool
) -> NDArray[Any]:
    """The values of a block that have a label, flat."""
    row, col, height, width = block
    with raster_errors(path):
        bands = open_dataset(path).read(window=RasterioWindow(col, row, width, height))
    values: NDArray[Any]
    if not colors:
        values = bands[0].ravel()
        nodata = header.nodatavals[0]
        if values.dtype.kind == "f":
            values = values[np.isfinite(values)]
        return values if nodata is None or not np.isfinite(nodata) else values[values != nodata]
    if header.count == 1 and header.palette is not None:
        table = np.zeros(256, dtype=np.int64)
        for index, (red, green, blue, _) in header.palette.items():
            table[index] = red << 16 | green << 8 | blue
        values = table[bands[0]].ravel()
        return values
    red, green, blue = (bands[:3] if header.count >= 3 else bands[[0, 0, 0]]).astype(np.int64)
    packed = red << 16 | green << 8 | blue
    values = packed[bands[3] > 0] if header.count == 4 else packed.ravel()
    return values


def _too_many_colors(path: Path) -> GeotuneError:
    return GeotuneError(
        f"{path}: the masks have more than {MAX_CLASSES} colours; expected one for each class: "
        "JPEG and resampling change colours, so write the masks again as PNG or GeoTIFF; see "
        f"{PAGES['scenes']}",
        code="class-values",
        key="data.labels",
        file=path,
    )
