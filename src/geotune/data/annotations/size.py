"""The image's size as a label file has it."""

from __future__ import annotations

from pathlib import Path

from geotune.data.raster.source import RasterSource
from geotune.errors import GeotuneError


def check_image_size(
    path: Path, place: str, claimed: tuple[float, float], raster: RasterSource
) -> None:
    """Raise `GeotuneError` where a file's annotations are of an image of another size (H, W)."""
    if claimed != raster.shape:
        raise GeotuneError(
            f"{path}: {place}: is of an image of {claimed[0]:g}x{claimed[1]:g} pixels (H x W), but "
            f"{raster.path} has {raster.shape[0]}x{raster.shape[1]}; annotations and image must be "
            "of one size"
        )
