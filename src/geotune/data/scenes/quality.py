"""Opening the quality masks of images, which flag clouds, shadows and other unusable pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from geotune.config.data_options import QualityOptions
from geotune.data.raster.align import align_to_grid
from geotune.data.raster.header import read_header
from geotune.data.raster.quality_mask import QualityMask
from geotune.data.raster.source import RasterSource
from geotune.data.scenes.open_scenes import label_file
from geotune.errors import GeotuneError, check_exists


def with_quality(
    sources: dict[str, RasterSource],
    options: QualityOptions,
    fields: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, RasterSource]:
    """Add to each image its mask.

    The pattern has `{stem}` for the scene's name, or its `fields`. Raises `GeotuneError` for a mask
    that is missing, not of integers, or that does not fit its image.
    """
    return {
        name: replace(
            source,
            quality=open_quality(
                mask_file(options, name, (fields or {}).get(name, {})), source, options
            ),
        )
        for name, source in sources.items()
    }


def mask_file(options: QualityOptions, name: str, fields: Mapping[str, str]) -> Path:
    """The mask of a scene with the `fields` of its pattern, whether or not it exists."""
    return label_file(options.pattern, name, {**fields, "stem": name})


def open_quality(path: Path, raster: RasterSource, options: QualityOptions) -> QualityMask:
    """Open the mask of the image `raster`; see `with_quality`."""
    check_exists(path, f"quality mask of {raster.path}", "data.quality.pattern")
    header = read_header(path)
    if options.band > header.count:
        raise GeotuneError(
            f"{path}: has {header.count} bands, but data.quality.band is {options.band}",
            code="band-missing",
            key="data.quality.band",
            file=path,
        )
    dtype = np.dtype(header.dtypes[options.band - 1])
    if dtype.kind not in "ui":
        raise GeotuneError(
            f"{path}: has {dtype} values; expected integers, to compare with data.quality",
            code="raster-dtype",
            key="data.quality",
            file=path,
        )
    highest = max(options.bits, default=0)
    if highest >= 8 * dtype.itemsize - (dtype.kind == "i"):
        raise GeotuneError(
            f"{path}: has {dtype} values without a bit {highest}; check data.quality.bits",
            code="raster-dtype",
            key="data.quality.bits",
            file=path,
        )
    grid, overlaps, _ = align_to_grid(path, raster, header)
    if not overlaps:
        raise GeotuneError(
            f"{path}: covers no part of its image {raster.path}, so that it flags nothing; check "
            "data.quality.pattern, and the CRS of both",
            code="grid-mismatch",
            key="data.quality.pattern",
            file=path,
        )
    return QualityMask(path, options, raster.shape, grid)
